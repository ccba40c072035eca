// A clock that stands still until a test moves it.
#pragma once

#include <map>

#include "engine/runtime/clock.h"
#include "engine/runtime/ready_queue.h"

namespace gabion::test {

// Owned by a test; one thread. `ready` outlives it.
class ManualClock final : public runtime::Clock {
 public:
  explicit ManualClock(runtime::ReadyQueue& ready) : ready_(ready) {}

  runtime::Instant Now() override { return now_; }

  void Schedule(Timer& timer, runtime::Instant deadline) override {
    Cancel(timer);
    by_timer_[&timer] = by_time_.emplace(deadline, &timer);
  }

  void Cancel(Timer& timer) override {
    auto found = by_timer_.find(&timer);
    if (found == by_timer_.end()) return;
    by_time_.erase(found->second);
    by_timer_.erase(found);
  }

  // Timers that are scheduled.
  std::size_t pending() const { return by_time_.size(); }

  // Runs what is ready, then every timer up to `end` in the order of their deadlines, each at its
  // own time and with what it makes ready; the clock is at `end` then.
  void RunUntil(runtime::Instant end) {
    ready_.RunUntilIdle();
    while (!by_time_.empty() && by_time_.begin()->first <= end) {
      const auto [deadline, timer] = *by_time_.begin();
      Cancel(*timer);
      if (deadline > now_) now_ = deadline;
      timer->Fire();
      ready_.RunUntilIdle();
    }
    now_ = end;
  }

  void Advance(runtime::Duration time) { RunUntil(now_ + time); }

  // Time passes and nothing notices yet, as when a thread does not get to run.
  void Skip(runtime::Duration time) { now_ = now_ + time; }

 private:
  using ByTime = std::multimap<runtime::Instant, Timer*>;

  runtime::ReadyQueue& ready() override { return ready_; }

  runtime::ReadyQueue& ready_;
  runtime::Instant now_{};
  ByTime by_time_;
  std::map<Timer*, ByTime::iterator> by_timer_;
};

}  // namespace gabion::test
