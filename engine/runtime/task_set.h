// Tasks that run on their own: a session's requests, a server's sessions.
#pragma once

#include <coroutine>
#include <cstddef>

#include "engine/base/check.h"
#include "engine/runtime/event.h"
#include "engine/runtime/ready_queue.h"
#include "engine/runtime/task.h"

namespace gabion::runtime {

// Owns unfinished tasks until they are done. Used on one shard; must be empty when destroyed:
// co_await Drain() first.
class TaskSet final : private TaskOwner {
 public:
  explicit TaskSet(ReadyQueue& ready) : emptied_(ready) {}
  TaskSet(const TaskSet&) = delete;
  TaskSet& operator=(const TaskSet&) = delete;
  ~TaskSet() { CHECK_EQ(running_, 0u); }

  void Add(Task<void> task) {
    if (task.done()) return;
    ++running_;
    task.Release(*this);
  }

  std::size_t running() const { return running_; }

  // Waits until every task has finished, including those added meanwhile.
  Task<void> Drain() {
    while (running_ > 0) co_await emptied_.Wait();
  }

 private:
  void OnTaskDone(std::coroutine_handle<> frame) override {
    frame.destroy();
    if (--running_ == 0) emptied_.WakeAll();
  }

  std::size_t running_ = 0;
  Signal emptied_;
};

}  // namespace gabion::runtime
