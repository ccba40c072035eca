// Calls at a later time.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "absl/functional/any_invocable.h"

namespace gabion::service {

// One thread that calls what is due, one after another in the order of their times; what it calls
// must not block. Owned by the program; any thread.
class Timers {
 public:
  using Clock = std::chrono::steady_clock;
  using Callback = absl::AnyInvocable<void() &&>;

  Timers();
  // As Stop().
  ~Timers();
  Timers(const Timers&) = delete;
  Timers& operator=(const Timers&) = delete;

  // Calls `callback` once, `delay` from now, unless it is cancelled or this is stopped before. The
  // id, never 0, takes it back.
  uint64_t After(Clock::duration delay, Callback callback);
  // True: it was not and will not be called. It does not wait for a call that is under way.
  bool Cancel(uint64_t id);

  // Lets a call that is under way finish and drops the others. Not from a call.
  void Stop();

 private:
  using Key = std::pair<Clock::time_point, uint64_t>;  // due; the id tells equal ones apart

  void Loop();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<Key, Callback> waiting_;
  std::map<uint64_t, Clock::time_point> due_;
  uint64_t last_id_ = 0;
  bool stopping_ = false;
  std::thread thread_;  // last: it uses the others
};

}  // namespace gabion::service
