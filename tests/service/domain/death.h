// The end of a daemon between two of its steps, or a step of it that fails.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <limits>
#include <mutex>
#include <utility>

#include "absl/status/status.h"

namespace gabion::service {

// Counts the steps of a daemon, which are commits and effects, and ends it at one of them: from
// then on nothing that it tries has an effect; or only lets this one fail. Owned by the test; any
// thread.
class Death {
 public:
  // What becomes of the step at which it dies.
  enum class Way {
    kBefore,      // it does not happen
    kAfter,       // it happens, and nobody hears of it
    kFailBefore,  // as kBefore, and the daemon lives on
    kFailAfter,   // as kAfter, and the daemon lives on; only of effects: a commit is or is not
  };

  // It dies at the next step but `steps`.
  void After(int steps, Way way) {
    const std::lock_guard lock(mutex_);
    left_ = steps;
    way_ = way;
    dead_ = false;
    failed_ = false;
    lose_ = false;
  }
  void Never() { After(std::numeric_limits<int>::max(), Way::kBefore); }
  // It dies where it is.
  void Kill() { After(0, Way::kBefore); }

  bool dead() const {
    const std::lock_guard lock(mutex_);
    return dead_;
  }
  // The step has come.
  bool came() const {
    const std::lock_guard lock(mutex_);
    return dead_ || failed_;
  }

  // The gates of a commit.
  absl::Status BeforeCommit() {
    {
      const std::lock_guard lock(mutex_);
      if (way_ == Way::kFailAfter) return absl::OkStatus();
    }
    return Before();
  }
  absl::Status AnswerCommit() {
    const std::lock_guard lock(mutex_);
    return dead_ ? Dead() : absl::OkStatus();
  }
  // The gates of an effect.
  absl::Status Before() {
    const std::lock_guard lock(mutex_);
    if (left_ > 0 || failed_) {
      --left_;
      return absl::OkStatus();
    }
    const bool happens = !dead_ && (way_ == Way::kAfter || way_ == Way::kFailAfter);
    failed_ = way_ == Way::kFailBefore || way_ == Way::kFailAfter;
    dead_ = !failed_;
    lose_ = happens;
    Tell();
    return happens ? absl::OkStatus() : Dead();
  }
  absl::Status Answer() {
    const std::lock_guard lock(mutex_);
    return dead_ || std::exchange(lose_, false) ? Dead() : absl::OkStatus();
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
  bool failed_ = false;
  bool lose_ = false;  // the next answer
  uint64_t told_ = 0;
};

}  // namespace gabion::service
