// The threads on which control calls do their work, so that gRPC's own threads never block.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/functional/any_invocable.h"

namespace gabion::service {

// A fixed number of threads and a queue. Owned by the program; Run() from any thread.
class Executor {
 public:
  explicit Executor(int threads);
  // As Stop().
  ~Executor();
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  // Runs `work` on one of the threads, in the order of the calls; it may block. False, and `work`
  // is not run: the executor has been stopped.
  bool Run(absl::AnyInvocable<void() &&> work);

  // Takes no more work, does all that it took, and ends the threads. Not from one of them.
  void Stop();

 private:
  void Loop();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<absl::AnyInvocable<void() &&>> queue_;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace gabion::service
