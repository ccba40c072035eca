#include "engine/io/asio_listener.h"

#include <sys/socket.h>

#include <asio/io_context.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <cerrno>
#include <chrono>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/text.h"
#include "engine/io/errno_status.h"
#include "engine/runtime/event.h"

namespace gabion::io {
namespace {

using Descriptor = asio::posix::stream_descriptor;

// Accepting again at once would spin: the connection stays in the backlog.
constexpr runtime::Duration kPause = std::chrono::milliseconds(50);
// Others on the shard get their turn in between.
constexpr int kAcceptsPerTurn = 64;

class AsioListener final : public Listener {
 public:
  AsioListener(runtime::Reactor& reactor, ListenSocket socket, Handler& handler, Logger& logger)
      : reactor_(reactor),
        handler_(handler),
        logger_(logger),
        address_(socket.address()),
        socket_(std::move(socket)),
        descriptor_(reactor.io_context(), socket_->fd()),
        accepting_(Accept()) {}
  ~AsioListener() override { CHECK(!socket_.has_value()); }

  const std::string& address() const override { return address_; }

  Task<void> Stop() override {
    CHECK(socket_.has_value());
    stopping_ = true;
    descriptor_.cancel();
    co_await accepting_;
    descriptor_.release();  // the ListenSocket closes it
    socket_.reset();
  }

 private:
  Task<void> Accept() {
    // The handler is not called before the creator has the listener.
    co_await reactor_.ready().Yield();
    while (!stopping_) {
      const int error = AcceptSome();
      if (stopping_) break;
      if (error == 0) {
        co_await reactor_.ready().Yield();
      } else if (error == EAGAIN) {
        co_await WaitForConnection();
      } else {
        Complain(error);
        const runtime::Instant later = reactor_.clock().Now() + kPause;
        co_await reactor_.clock().SleepUntil(later);
      }
    }
  }

  // 0 if there may be more.
  int AcceptSome() {
    for (int i = 0; i < kAcceptsPerTurn && !stopping_; ++i) {
      UniqueFd connection(accept4(socket_->fd(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
      if (connection.valid()) {
        complained_ = false;
        handler_.OnConnection(std::move(connection));
        continue;
      }
      switch (errno) {
        // The connection was at fault, and is gone.
        case EINTR:
        case ECONNABORTED:
        case EPROTO:
        case ENETDOWN:
        case ENOPROTOOPT:
        case EHOSTDOWN:
        case ENONET:
        case EHOSTUNREACH:
        case EOPNOTSUPP:
        case ENETUNREACH:
        case EPERM:
          continue;
        default:
          return errno;
      }
    }
    return 0;
  }

  Task<void> WaitForConnection() {
    runtime::OneShot<bool> woken(reactor_.ready());
    descriptor_.async_wait(Descriptor::wait_read,
                           [signal = &woken](const asio::error_code&) { signal->Set(true); });
    co_await woken;
  }

  void Complain(int error) {
    if (std::exchange(complained_, true)) return;
    const absl::Status status = ErrnoStatus(error, "accept");
    logger_.Log(LogLevel::kWarning, "io",
                absl::StrCat("cannot take connections on ", address_,
                             " for the moment: ", status.message()));
  }

  runtime::Reactor& reactor_;
  Handler& handler_;
  Logger& logger_;
  const std::string address_;
  std::optional<ListenSocket> socket_;
  Descriptor descriptor_;
  bool stopping_ = false;
  bool complained_ = false;
  Task<void> accepting_;
};

}  // namespace

std::unique_ptr<Listener> NewAsioListener(runtime::Reactor& reactor, ListenSocket socket,
                                          Listener::Handler& handler, Logger& logger) {
  return std::make_unique<AsioListener>(reactor, std::move(socket), handler, logger);
}

}  // namespace gabion::io
