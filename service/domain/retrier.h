// Trying again in the background what could not be done.
#pragma once

#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <string>
#include <thread>

#include "absl/functional/any_invocable.h"

namespace gabion::service {

// Calls a function for each of its keys, one after another on a thread of its own, until the
// function says that it is done; between two calls for a key it waits, longer each time. Owned by
// the domain; any thread.
class Retrier {
 public:
  using Clock = std::chrono::steady_clock;
  // True: done, the key is forgotten.
  using Try = absl::AnyInvocable<bool(const std::string& key)>;

  // The first wait is `first_wait`; it doubles up to `longest_wait`.
  Retrier(std::chrono::milliseconds first_wait, std::chrono::milliseconds longest_wait,
          Try try_again);
  // As Stop().
  ~Retrier();
  Retrier(const Retrier&) = delete;
  Retrier& operator=(const Retrier&) = delete;

  // Tries `key` again after the first wait, unless it is being retried already.
  void Add(const std::string& key);
  // Forgets `key`. A call for it that is under way goes on.
  void Remove(const std::string& key);

  // Lets a call that is under way finish and starts no other.
  void Stop();

 private:
  struct Entry {
    Clock::time_point due;
    std::chrono::milliseconds wait;
  };

  void Loop();

  const std::chrono::milliseconds first_wait_;
  const std::chrono::milliseconds longest_wait_;
  Try try_again_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, Entry> entries_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace gabion::service
