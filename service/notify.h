// What the daemon tells its service manager: the protocol of sd_notify(3), without its library.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <thread>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"

namespace gabion::service {

// Says to the socket named by NOTIFY_SOCKET that the daemon is ready, that it stops, and, as often
// as WATCHDOG_USEC asks, that it works. Without NOTIFY_SOCKET it says nothing. Owned by the
// program, which calls it on one thread.
class Notifier {
 public:
  // Shows that the process works: has `answer` called, on any thread, once a piece of work like
  // that of a call has been done; or not at all.
  using Probe = absl::AnyInvocable<void(absl::AnyInvocable<void() &&> answer)>;

  // `environment`: all variables. INVALID_ARGUMENT if one of them cannot be understood, UNAVAILABLE
  // if nobody listens; each names the variable.
  static absl::StatusOr<std::unique_ptr<Notifier>> Open(
      const std::map<std::string, std::string>& environment);
  // One that says nothing.
  Notifier();
  // As StopWatchdog().
  ~Notifier();
  Notifier(const Notifier&) = delete;
  Notifier& operator=(const Notifier&) = delete;

  // `status`: what the manager shows people; one line.
  absl::Status Ready(std::string_view status);
  absl::Status Stopping(std::string_view status);

  // Zero: nobody waits for signs of life.
  std::chrono::microseconds watchdog_timeout() const { return watchdog_timeout_; }
  // Probes twice within the timeout, and passes each answer on; a probe that is not answered is the
  // last one, and the manager acts. Nothing happens if the timeout is zero. Call it once.
  void StartWatchdog(Probe probe);
  // Returns when no probe is being started any more; an answer may still come.
  void StopWatchdog();

 private:
  class Socket;
  struct Watch;

  absl::Status Send(const std::string& message);

  std::unique_ptr<Socket> socket_;  // null: nobody listens
  std::chrono::microseconds watchdog_timeout_{0};
  std::shared_ptr<Watch> watch_;  // shared with answers, which may come late
  std::thread watchdog_;
};

}  // namespace gabion::service
