// How other threads speak to a shard: they post functions, which run on the shard.
#pragma once

#include <atomic>
#include <mutex>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "engine/runtime/reactor.h"

namespace gabion::runtime {

// Owned by the shard; Post() from any thread, everything else on the shard. Functions that one
// thread posts run in order.
class Mailbox final : public Poller {
 public:
  using Message = absl::AnyInvocable<void() &&>;

  explicit Mailbox(Reactor& reactor);
  ~Mailbox();
  Mailbox(const Mailbox&) = delete;
  Mailbox& operator=(const Mailbox&) = delete;

  void Post(Message message);

  bool Poll() override;
  int wake_fd() const override { return event_fd_; }
  bool PrepareToSleep() override;

 private:
  Reactor& reactor_;
  const int event_fd_;
  std::atomic<bool> sleeping_ = false;  // the next Post() must write to event_fd_
  std::atomic<bool> filled_ = false;    // inbox_ may have something
  std::mutex mutex_;
  std::vector<Message> inbox_;    // guarded by mutex_
  std::vector<Message> running_;  // the shard's own
};

}  // namespace gabion::runtime
