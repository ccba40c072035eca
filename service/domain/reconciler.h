// Bringing what is there to what is wanted, again and again until it is.
#pragma once

#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <random>
#include <string>
#include <thread>

#include "absl/functional/any_invocable.h"

namespace gabion::service {

struct ReconcilerOptions {
  std::chrono::milliseconds first_wait{1'000};  // after a first failure; doubles
  std::chrono::milliseconds longest_wait{60'000};
};

// A queue of resource names, each at most once, worked off one after another on a thread of its
// own. It is level-triggered: whoever works on a name reads what is wanted and what is there, not
// what has happened. A failure is tried again later, each time after a longer wait, of which up to
// a fifth is chance so that what failed together does not stay together. Owned by the domain; any
// thread.
class Reconciler {
 public:
  using Clock = std::chrono::steady_clock;
  enum class Outcome {
    kDone,   // as wanted: forgotten
    kRetry,  // not yet
  };
  using Work = absl::AnyInvocable<Outcome(const std::string& name)>;

  Reconciler(ReconcilerOptions options, Work work);
  // As Stop().
  ~Reconciler();
  Reconciler(const Reconciler&) = delete;
  Reconciler& operator=(const Reconciler&) = delete;

  // Works on `name` after `wait`, or earlier if it is due earlier. A failure before does not count
  // any more.
  void Add(const std::string& name, std::chrono::milliseconds wait = std::chrono::milliseconds(0));
  // As after a failure: after the first wait, or earlier if it is due earlier.
  void AddFailed(const std::string& name);
  // Forgets `name`. Work on it that is under way goes on.
  void Remove(const std::string& name);

  // Lets work that is under way end and starts no other.
  void Stop();

 private:
  struct Entry {
    Clock::time_point due;
    std::chrono::milliseconds next_wait;
    bool again = false;  // added while it was being worked on
  };

  void Loop();
  // Under the lock, after work on `name` that ended so.
  void Settle(const std::string& name, Outcome outcome);
  std::chrono::milliseconds WithChance(std::chrono::milliseconds wait);

  const ReconcilerOptions options_;
  Work work_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, Entry> entries_;
  std::string working_on_;
  std::minstd_rand chance_{std::random_device{}()};
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace gabion::service
