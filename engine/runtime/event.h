// Waiting for something that happens once (OneShot) or again and again (Signal), on one shard.
#pragma once

#include <coroutine>
#include <optional>
#include <utility>
#include <vector>

#include "engine/base/check.h"
#include "engine/runtime/ready_queue.h"

namespace gabion::runtime {

// One value, delivered once to one waiter. Lives in the frame of the coroutine that awaits it, or
// longer. Not thread-safe: Set() on the waiter's shard.
template <typename T>
class OneShot {
 public:
  explicit OneShot(ReadyQueue& ready) : ready_(ready) {}
  OneShot(const OneShot&) = delete;
  OneShot& operator=(const OneShot&) = delete;

  void Set(T value) {
    CHECK(!value_.has_value());
    value_.emplace(std::move(value));
    if (waiter_) ready_.Push(std::exchange(waiter_, nullptr));
  }

  bool await_ready() const { return value_.has_value(); }
  void await_suspend(std::coroutine_handle<> waiter) {
    CHECK(!waiter_);
    waiter_ = waiter;
  }
  T await_resume() { return std::move(*value_); }

 private:
  ReadyQueue& ready_;
  std::coroutine_handle<> waiter_;
  std::optional<T> value_;
};

// Wakes everybody who waits at the moment; keeps no memory of a call without waiters, so waiters
// re-check their condition in a loop: `while (!condition) co_await signal.Wait();`
class Signal {
 public:
  explicit Signal(ReadyQueue& ready) : ready_(ready) {}
  Signal(const Signal&) = delete;
  Signal& operator=(const Signal&) = delete;
  ~Signal() { CHECK(waiters_.empty()); }

  auto Wait() {
    struct Awaiter {
      Signal& signal;
      bool await_ready() const noexcept { return false; }
      void await_suspend(std::coroutine_handle<> waiter) const {
        signal.waiters_.push_back(waiter);
      }
      void await_resume() const noexcept {}
    };
    return Awaiter{*this};
  }

  void WakeAll() {
    for (std::coroutine_handle<> waiter : waiters_) ready_.Push(waiter);
    waiters_.clear();
  }

 private:
  ReadyQueue& ready_;
  std::vector<std::coroutine_handle<>> waiters_;
};

}  // namespace gabion::runtime
