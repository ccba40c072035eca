#include "engine/io/asio_stream.h"

#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <asio/io_context.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <cerrno>
#include <optional>
#include <utility>
#include <vector>

#include "engine/base/check.h"
#include "engine/io/errno_status.h"
#include "engine/io/socket_address.h"
#include "engine/runtime/event.h"

namespace gabion::io {
namespace {

using Descriptor = asio::posix::stream_descriptor;

// Dead peers are noticed after about two minutes.
constexpr int kKeepAliveIdleSeconds = 60;
constexpr int kKeepAliveIntervalSeconds = 10;
constexpr int kKeepAliveProbes = 6;

void SetOption(int fd, int level, int name, int value) {
  // An option that a socket does not have is no reason to refuse it.
  static_cast<void>(setsockopt(fd, level, name, &value, sizeof(value)));
}

void Prepare(int fd) {
  const int flags = fcntl(fd, F_GETFL);
  CHECK(flags >= 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0);
  int domain = 0;
  socklen_t size = sizeof(domain);
  CHECK_EQ(getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size), 0);
  if (domain == AF_UNIX) return;
  SetOption(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  SetOption(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  SetOption(fd, IPPROTO_TCP, TCP_KEEPIDLE, kKeepAliveIdleSeconds);
  SetOption(fd, IPPROTO_TCP, TCP_KEEPINTVL, kKeepAliveIntervalSeconds);
  SetOption(fd, IPPROTO_TCP, TCP_KEEPCNT, kKeepAliveProbes);
}

bool WouldBlock(int error) { return error == EAGAIN || error == EWOULDBLOCK; }

class AsioStream final : public Stream {
 public:
  AsioStream(runtime::Reactor& reactor, UniqueFd socket)
      : reactor_(reactor), descriptor_(reactor.io_context()) {
    Prepare(socket.get());
    peer_ = PeerName(socket.get());
    descriptor_.assign(socket.Release());
  }
  ~AsioStream() override {
    CHECK(!reading_);
    CHECK(!writing_);
  }

  Task<absl::StatusOr<std::size_t>> ReadSome(MutableBytes dst) override {
    CHECK(!dst.empty());
    CHECK(!reading_);
    const ssize_t got = Receive(dst);
    if (got >= 0) return absl::StatusOr<std::size_t>(static_cast<std::size_t>(got));
    if (!WouldBlock(errno)) return absl::StatusOr<std::size_t>(ErrnoStatus(errno, "receive"));
    return ReadLater(dst);
  }

  Task<absl::Status> WriteAll(std::span<const Bytes> pieces) override {
    CHECK(!writing_);
    unsent_.clear();
    for (const Bytes piece : pieces) {
      if (piece.empty()) continue;
      unsent_.push_back({const_cast<std::byte*>(piece.data()), piece.size()});
    }
    first_ = 0;
    const int error = SendWhatFits();
    if (error == 0) return absl::OkStatus();
    if (!WouldBlock(error)) return ErrnoStatus(error, "send");
    return WriteLater();
  }

  void ShutdownRead() override {
    if (readable_.has_value()) return;
    // TCP goes on queueing what arrives later; only what is here now is still to be read.
    int arrived = 0;
    if (ioctl(fd(), FIONREAD, &arrived) != 0) arrived = 0;
    readable_ = static_cast<std::size_t>(arrived);
    static_cast<void>(shutdown(fd(), SHUT_RD));  // wakes a read that waits
  }

  void Shutdown() override {
    // Fails only when the connection is gone already. The kernel wakes whoever waits.
    static_cast<void>(shutdown(fd(), SHUT_RDWR));
  }

  const std::string& peer() const override { return peer_; }

 private:
  int fd() { return descriptor_.native_handle(); }

  ssize_t Receive(MutableBytes dst) {
    if (readable_.has_value()) {
      dst = dst.first(std::min(dst.size(), *readable_));
      if (dst.empty()) return 0;
    }
    ssize_t got;
    do {
      got = recv(fd(), dst.data(), dst.size(), MSG_DONTWAIT);
    } while (got < 0 && errno == EINTR);
    if (readable_.has_value() && got > 0) *readable_ -= static_cast<std::size_t>(got);
    return got;
  }

  Task<absl::StatusOr<std::size_t>> ReadLater(MutableBytes dst) {
    reading_ = true;
    ssize_t got;
    do {
      co_await WaitFor(Descriptor::wait_read);
      got = Receive(dst);
    } while (got < 0 && WouldBlock(errno));
    const int error = errno;
    reading_ = false;
    if (got < 0) co_return ErrnoStatus(error, "receive");
    co_return static_cast<std::size_t>(got);
  }

  Task<absl::Status> WriteLater() {
    writing_ = true;
    int error;
    do {
      co_await WaitFor(Descriptor::wait_write);
      error = SendWhatFits();
    } while (error != 0 && WouldBlock(error));
    writing_ = false;
    if (error != 0) co_return ErrnoStatus(error, "send");
    co_return absl::OkStatus();
  }

  // 0 when everything is sent; else errno, and the rest stays in unsent_ from first_ on.
  int SendWhatFits() {
    while (first_ < unsent_.size()) {
      msghdr message = {};
      message.msg_iov = unsent_.data() + first_;
      message.msg_iovlen = std::min<std::size_t>(unsent_.size() - first_, IOV_MAX);
      const ssize_t sent = sendmsg(fd(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
      if (sent < 0) {
        if (errno == EINTR) continue;
        return errno;
      }
      Consume(static_cast<std::size_t>(sent));
    }
    return 0;
  }

  void Consume(std::size_t sent) {
    while (sent > 0) {
      iovec& front = unsent_[first_];
      const std::size_t part = std::min(sent, front.iov_len);
      front.iov_base = static_cast<std::byte*>(front.iov_base) + part;
      front.iov_len -= part;
      sent -= part;
      if (front.iov_len == 0) ++first_;
    }
  }

  // Until the socket can be read or written, or has failed.
  Task<void> WaitFor(Descriptor::wait_type what) {
    runtime::OneShot<bool> woken(reactor_.ready());
    descriptor_.async_wait(what, [signal = &woken](const asio::error_code&) { signal->Set(true); });
    co_await woken;
  }

  runtime::Reactor& reactor_;
  Descriptor descriptor_;
  std::string peer_;
  std::vector<iovec> unsent_;
  std::size_t first_ = 0;
  // After ShutdownRead(): how much of what had arrived is still to be read.
  std::optional<std::size_t> readable_;
  bool reading_ = false;
  bool writing_ = false;
};

}  // namespace

std::unique_ptr<Stream> NewAsioStream(runtime::Reactor& reactor, UniqueFd socket) {
  return std::make_unique<AsioStream>(reactor, std::move(socket));
}

}  // namespace gabion::io
