#include "service/notify.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"

namespace gabion::service {
namespace {

constexpr const char* kSocket = "NOTIFY_SOCKET";
constexpr const char* kTimeout = "WATCHDOG_USEC";
constexpr const char* kProcess = "WATCHDOG_PID";
// A manager that does not read for this long is given up on, not waited for.
constexpr timeval kSendTimeout = {.tv_sec = 5, .tv_usec = 0};

// The number in the variable `name`; zero if it is not set.
absl::StatusOr<int64_t> NumberOf(const std::map<std::string, std::string>& environment,
                                 const char* name) {
  const auto found = environment.find(name);
  if (found == environment.end()) return 0;
  const std::string& text = found->second;
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error == std::errc() && end == text.data() + text.size() && number > 0) return number;
  return absl::InvalidArgumentError(
      absl::StrCat(name, " must be a number above 0, is \"", text, "\"."));
}

// The address that `text` names: a path, or '@' and a name without a file ("abstract").
absl::StatusOr<std::pair<sockaddr_un, socklen_t>> AddressOf(const std::string& text) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  const bool abstract = text.starts_with('@');
  if (!abstract && !text.starts_with('/')) {
    return absl::InvalidArgumentError(
        absl::StrCat(kSocket, " must be an absolute path, or @ and a name, is \"", text, "\"."));
  }
  // A path ends with a zero; an abstract name begins with one, and ends where the address ends.
  const size_t room = sizeof(address.sun_path) - (abstract ? 0 : 1);
  if (text.size() < 2 || text.size() > room) {
    return absl::InvalidArgumentError(
        absl::StrCat(kSocket, " must have from 2 to ", room, " bytes, has ", text.size(), "."));
  }
  std::memcpy(address.sun_path, text.data(), text.size());
  if (abstract) address.sun_path[0] = '\0';
  const size_t length = offsetof(sockaddr_un, sun_path) + text.size() + (abstract ? 0 : 1);
  return std::pair(address, static_cast<socklen_t>(length));
}

}  // namespace

// A datagram socket that is connected to the manager. Thread-safe.
class Notifier::Socket {
 public:
  static absl::StatusOr<std::unique_ptr<Socket>> Connect(const std::string& name) {
    ASSIGN_OR_RETURN(const auto address, AddressOf(name));
    const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return absl::ErrnoToStatus(errno, "socket");
    std::unique_ptr<Socket> connected(new Socket(fd));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &kSendTimeout, sizeof(kSendTimeout));
    if (connect(fd, reinterpret_cast<const sockaddr*>(&address.first), address.second) != 0) {
      return absl::UnavailableError(
          absl::StrCat("Nobody listens on ", kSocket, " ", name, ": ", std::strerror(errno), "."));
    }
    return connected;
  }
  ~Socket() { close(fd_); }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;

  // `flags` as for send(2).
  absl::Status Send(std::string_view message, int flags) {
    if (send(fd_, message.data(), message.size(), flags | MSG_NOSIGNAL) >= 0) {
      return absl::OkStatus();
    }
    return absl::UnavailableError(
        absl::StrCat("The service manager cannot be told: ", std::strerror(errno), "."));
  }

 private:
  explicit Socket(int fd) : fd_(fd) {}
  const int fd_;
};

struct Notifier::Watch {
  std::mutex mutex;
  std::condition_variable changed;
  bool answered = false;
  bool stopping = false;
};

absl::StatusOr<std::unique_ptr<Notifier>> Notifier::Open(
    const std::map<std::string, std::string>& environment) {
  auto notifier = std::make_unique<Notifier>();
  const auto name = environment.find(kSocket);
  if (name == environment.end()) return notifier;
  ASSIGN_OR_RETURN(const int64_t timeout, NumberOf(environment, kTimeout));
  ASSIGN_OR_RETURN(const int64_t process, NumberOf(environment, kProcess));
  ASSIGN_OR_RETURN(notifier->socket_, Socket::Connect(name->second));
  // Set for another process, from which this one has inherited it: not meant for this one.
  const bool ours = process == 0 || process == getpid();
  notifier->watchdog_timeout_ = std::chrono::microseconds(ours ? timeout : 0);
  return notifier;
}

Notifier::Notifier() : watch_(std::make_shared<Watch>()) {}

Notifier::~Notifier() { StopWatchdog(); }

absl::Status Notifier::Send(const std::string& message) {
  return socket_ == nullptr ? absl::OkStatus() : socket_->Send(message, 0);
}

absl::Status Notifier::Ready(std::string_view status) {
  return Send(absl::StrCat("READY=1\nSTATUS=", std::string(status), "\n"));
}

absl::Status Notifier::Stopping(std::string_view status) {
  return Send(absl::StrCat("STOPPING=1\nSTATUS=", std::string(status), "\n"));
}

void Notifier::StartWatchdog(Probe probe) {
  if (watchdog_timeout_.count() == 0) return;
  watchdog_ = std::thread([this, probe = std::move(probe)]() mutable {
    const std::shared_ptr<Watch> watch = watch_;
    std::unique_lock lock(watch->mutex);
    while (!watch->changed.wait_for(lock, watchdog_timeout_ / 2, [&] { return watch->stopping; })) {
      watch->answered = false;
      lock.unlock();
      probe([watch] {
        const std::lock_guard answering(watch->mutex);
        watch->answered = true;
        watch->changed.notify_all();
      });
      lock.lock();
      watch->changed.wait(lock, [&] { return watch->answered || watch->stopping; });
      if (watch->stopping) return;
      // One that finds no room is made up for by the next.
      (void)socket_->Send("WATCHDOG=1\n", MSG_DONTWAIT);
    }
  });
}

void Notifier::StopWatchdog() {
  {
    const std::lock_guard lock(watch_->mutex);
    watch_->stopping = true;
  }
  watch_->changed.notify_all();
  if (watchdog_.joinable()) watchdog_.join();
}

}  // namespace gabion::service
