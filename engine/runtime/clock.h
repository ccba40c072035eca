// The port for time: monotonic, so that a test or a simulation can be the clock.
#pragma once

#include <chrono>
#include <cstdint>

#include "engine/runtime/task.h"

namespace gabion::runtime {

using Duration = std::chrono::nanoseconds;

// A moment on the clock that gave it; only differences mean anything.
struct Instant {
  Duration since_start{0};
  friend constexpr auto operator<=>(const Instant&, const Instant&) = default;
  friend constexpr Instant operator+(Instant at, Duration wait) { return {at.since_start + wait}; }
  friend constexpr Duration operator-(Instant a, Instant b) {
    return a.since_start - b.since_start;
  }
};

// Owned by the shard; used on the shard.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual Instant Now() = 0;

  // Calls `timer.Fire()` once, on the shard, at or after `deadline`, unless Cancel() comes first.
  // The timer outlives its registration.
  class Timer {
   public:
    virtual void Fire() = 0;

   protected:
    ~Timer() = default;
  };
  virtual void Schedule(Timer& timer, Instant deadline) = 0;
  // No effect on a timer that is not scheduled.
  virtual void Cancel(Timer& timer) = 0;

  // Waits until `deadline`.
  Task<void> SleepUntil(Instant deadline);

 protected:
  // Where a sleeper is pushed when its time has come.
  virtual class ReadyQueue& ready() = 0;
};

}  // namespace gabion::runtime
