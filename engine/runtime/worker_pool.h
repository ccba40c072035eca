// Threads for calls that block or take long: what must not run on a shard.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "engine/base/check.h"
#include "engine/runtime/event.h"
#include "engine/runtime/mailbox.h"
#include "engine/runtime/reactor.h"
#include "engine/runtime/task.h"

namespace gabion::runtime {

// A fixed number of threads and one queue. Owned by the engine, outlives the shards that use it;
// Post() from any thread.
class WorkerPool {
 public:
  using Work = absl::AnyInvocable<void() &&>;

  // `name` of at most 12 characters: the threads are called name-0, name-1, ... They block all
  // signals. REQUIRES: threads >= 1.
  WorkerPool(const std::string& name, std::size_t threads);
  // Finishes everything that was posted, then ends the threads.
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  // Runs `work` on some thread; started in the order of posting.
  void Post(Work work);

  std::size_t threads() const { return threads_.size(); }

 private:
  void RunThread();

  std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<Work> queue_;  // guarded by mutex_
  bool stopping_ = false;   // guarded by mutex_
  std::vector<std::thread> threads_;
};

// A shard's access to a pool: tasks that wait for a worker and go on at home. Owned by the shard,
// used on it; every task is done before it is destroyed.
class Workers {
 public:
  Workers(WorkerPool& pool, Reactor& reactor)
      : pool_(pool), ready_(reactor.ready()), clock_(reactor.clock()), mailbox_(reactor) {}
  ~Workers() {
    CHECK_EQ(running_, 0u);
    // A worker that has just delivered may still be on its way out of the mailbox.
    while (visitors_.load() > 0) std::this_thread::yield();
  }
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  // Calls `work` on a worker and gives its result, which must not be void. What `work` refers to
  // stays valid until the task is done.
  template <typename F>
  Task<std::invoke_result_t<F&>> Run(F work) {
    using Result = std::invoke_result_t<F&>;
    std::optional<Result> result;
    OneShot<bool> done(ready_);
    ++running_;
    ++visitors_;
    // Everything that the closures point to lives in this frame, which waits for `done`.
    pool_.Post([this, call = &work, to = &result, signal = &done] {
      to->emplace((*call)());
      mailbox_.Post([signal] { signal->Set(true); });
      --visitors_;
    });
    co_await done;
    --running_;
    co_return std::move(*result);
  }

  std::size_t running() const { return running_; }
  Clock& clock() { return clock_; }
  ReadyQueue& ready() { return ready_; }

 private:
  WorkerPool& pool_;
  ReadyQueue& ready_;
  Clock& clock_;
  Mailbox mailbox_;
  std::size_t running_ = 0;
  std::atomic<std::size_t> visitors_ = 0;  // calls that will still touch this object
};

}  // namespace gabion::runtime
