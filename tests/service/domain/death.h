// The end of a daemon between two of its steps.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <limits>
#include <mutex>

#include "absl/status/status.h"

namespace gabion::service {

// Counts the steps of a daemon, which are commits and effects, and ends it at one of them: from
// then on nothing that it tries has an effect. Owned by the test; any thread.
class Death {
 public:
  // What becomes of the step at which it dies.
  enum class Way {
    kBefore,  // it does not happen
    kAfter,   // it happens, and nobody hears of it
  };

  // It dies at the next step but `steps`.
  void After(int steps, Way way) {
    const std::lock_guard lock(mutex_);
    left_ = steps;
    way_ = way;
    dead_ = false;
  }
  void Never() { After(std::numeric_limits<int>::max(), Way::kBefore); }
  // It dies where it is.
  void Kill() { After(0, Way::kBefore); }

  bool dead() const {
    const std::lock_guard lock(mutex_);
    return dead_;
  }

  // The gates of a step.
  absl::Status Before() {
    const std::lock_guard lock(mutex_);
    if (left_ > 0) {
      --left_;
      return absl::OkStatus();
    }
    const bool happens = !dead_ && way_ == Way::kAfter;
    dead_ = true;
    Tell();
    return happens ? absl::OkStatus() : Dead();
  }
  absl::Status Answer() {
    const std::lock_guard lock(mutex_);
    return dead_ ? Dead() : absl::OkStatus();
  }

  // Something has happened that Await() may wait for.
  void Poke() {
    const std::lock_guard lock(mutex_);
    Tell();
  }
  // Blocks until it is dead or `holds`, which is asked after every Poke(). False: neither came.
  bool Await(const std::function<bool()>& holds) {
    constexpr std::chrono::seconds kLongest(20);
    const auto end = std::chrono::steady_clock::now() + kLongest;
    for (;;) {
      uint64_t seen;
      {
        const std::lock_guard lock(mutex_);
        if (dead_) return true;
        seen = told_;
      }
      if (holds()) return true;
      std::unique_lock lock(mutex_);
      if (!changed_.wait_until(lock, end, [&] { return dead_ || told_ != seen; })) return false;
    }
  }

 private:
  static absl::Status Dead() { return absl::UnavailableError("The daemon is dead."); }
  void Tell() {
    ++told_;
    changed_.notify_all();
  }

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  int left_ = std::numeric_limits<int>::max();
  Way way_ = Way::kBefore;
  bool dead_ = false;
  uint64_t told_ = 0;
};

}  // namespace gabion::service
