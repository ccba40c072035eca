// The coroutines of one shard that can go on. Whoever completes something that a coroutine waits
// for pushes the coroutine here and never resumes it itself (task.h, rule 4).
#pragma once

#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "engine/base/check.h"

namespace gabion::runtime {

// Owned by a shard's reactor, or by a test; used on that shard only.
class ReadyQueue {
 public:
  // Chooses which of `count` ready coroutines runs next; for simulations. Empty: first in, first
  // out.
  using Chooser = std::size_t (*)(void* context, std::size_t count);

  ReadyQueue() = default;
  ReadyQueue(const ReadyQueue&) = delete;
  ReadyQueue& operator=(const ReadyQueue&) = delete;

  void Push(std::coroutine_handle<> coroutine) { waiting_.push_back(coroutine); }
  bool empty() const { return waiting_.empty(); }

  void SetChooser(Chooser chooser, void* context) {
    chooser_ = chooser;
    chooser_context_ = context;
  }

  // Resumes what was ready when it was called, and not what becomes ready meanwhile, so that a loop
  // turn is finite. Returns how many ran.
  std::size_t RunOnce() {
    CHECK(running_.empty());
    std::swap(running_, waiting_);
    const std::size_t count = running_.size();
    for (std::size_t i = 0; i < count; ++i) {
      if (chooser_ != nullptr) {
        std::swap(running_[i], running_[i + chooser_(chooser_context_, count - i)]);
      }
      running_[i].resume();
    }
    running_.clear();
    return count;
  }

  // Runs until nothing is ready; for tests, where nothing wakes itself for ever.
  void RunUntilIdle() {
    while (RunOnce() > 0) {
    }
  }

  // co_await queue.Yield(): lets everything else that is ready run first.
  auto Yield() {
    struct Awaiter {
      ReadyQueue& queue;
      bool await_ready() const noexcept { return false; }
      void await_suspend(std::coroutine_handle<> waiter) const { queue.Push(waiter); }
      void await_resume() const noexcept {}
    };
    return Awaiter{*this};
  }

 private:
  std::vector<std::coroutine_handle<>> waiting_;
  std::vector<std::coroutine_handle<>> running_;
  Chooser chooser_ = nullptr;
  void* chooser_context_ = nullptr;
};

}  // namespace gabion::runtime
