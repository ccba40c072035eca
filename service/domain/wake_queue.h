// Threads that come back to things when their time has come, or when somebody wakes them.
#pragma once

#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/functional/any_invocable.h"

namespace gabion::service {

// Calls a function for each of its keys, for one key never on two threads at a time, whenever the
// key is due; the function says when that is next. Owned by the operation manager; any thread.
class WakeQueue {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr Clock::time_point kNow = Clock::time_point::min();
  static constexpr Clock::time_point kWhenWoken = Clock::time_point::max();

  // What becomes of a key.
  struct Next {
    bool done = false;  // forget it
    Clock::time_point due = kNow;
  };
  // Called on several threads at a time, for different keys. `here`: by VisitHere().
  using Visit = absl::AnyInvocable<Next(const std::string& key, bool here)>;

  WakeQueue(int threads, Visit visit);
  // As Stop().
  ~WakeQueue();
  WakeQueue(const WakeQueue&) = delete;
  WakeQueue& operator=(const WakeQueue&) = delete;

  // Adds a key that is due at once; nothing if it is known.
  void Add(const std::string& key);
  // Visits a new key on the calling thread, and leaves it to the others from then on. False, and
  // it is not visited: the key is known, or the queue has been stopped.
  bool VisitHere(const std::string& key);
  bool Has(const std::string& key);
  // Makes a key due now; while it is being visited: once more after that. Nothing for a key that
  // is not known.
  void Wake(const std::string& key);

  // Lets visits that are under way finish and starts no other. Not from a visit.
  void Stop();

 private:
  struct Entry {
    Clock::time_point due = kNow;
    bool visited = false;  // right now
    bool woken = false;    // since the visit began
  };
  using Entries = std::map<std::string, Entry>;

  void Loop();
  // The one that is due first of those that are not being visited; end() if there is none.
  Entries::iterator First();
  void VisitAndSettle(const std::string& key, bool here, std::unique_lock<std::mutex>* lock);

  Visit visit_;
  std::mutex mutex_;
  std::condition_variable changed_;
  Entries entries_;
  int visits_here_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace gabion::service
