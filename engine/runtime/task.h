// Task<T>: a computation on one shard that may have to wait.
//
// Rules, which every user of this header keeps:
// (1) Eager: the body runs at once, in the caller, up to its first real wait.
// (2) Owned: a Task is move-only; its owner awaits it, or hands it to a TaskSet. It is done before
//     it is destroyed; there is no cancellation by destruction.
// (3) One thread: a Task is created, resumed and destroyed on the same shard.
// (4) Only a finished child resumes its parent inline. Everything else that wakes a coroutine
//     pushes it to the shard's ReadyQueue, so that no caller is ever re-entered.
// (5) No exceptions: an exception that leaves a body ends the process.
// (6) GCC 12: name every non-trivial temporary before a co_await that uses it; no capturing lambda
//     coroutines; parameters by value, span, or reference to something that outlives the task; no
//     co_await inside ?: or statement expressions.
//
// A function that has its answer at once returns it as a ready Task, which allocates nothing:
// `return Task<T>(value)`.
#pragma once

#include <coroutine>
#include <cstddef>
#include <exception>
#include <optional>
#include <utility>

#include "engine/base/check.h"
#include "engine/runtime/frame_pool.h"

namespace gabion::runtime {

template <typename T>
class Task;

// Told when a task that was handed over with Task<void>::Release() has finished. See task_set.h.
class TaskOwner {
 public:
  virtual void OnTaskDone(std::coroutine_handle<> frame) = 0;

 protected:
  ~TaskOwner() = default;
};

namespace internal {

struct PromiseBase {
  std::coroutine_handle<> waiter;  // the parent that awaits this task
  TaskOwner* owner = nullptr;      // instead of a parent, for tasks in a TaskSet
  bool finished = false;

  static void* operator new(std::size_t size) { return AllocateFrame(size); }
  static void operator delete(void* frame, std::size_t size) { FreeFrame(frame, size); }

  struct FinalAwaiter {
    bool await_ready() const noexcept { return false; }
    template <typename Promise>
    void await_suspend(std::coroutine_handle<Promise> frame) noexcept {
      PromiseBase& promise = frame.promise();
      promise.finished = true;
      // The frame may be gone after either call: touch nothing behind it.
      if (promise.owner != nullptr) {
        promise.owner->OnTaskDone(frame);
      } else if (promise.waiter) {
        promise.waiter.resume();
      }
    }
    void await_resume() const noexcept {}
  };

  std::suspend_never initial_suspend() const noexcept { return {}; }
  FinalAwaiter final_suspend() const noexcept { return {}; }
  [[noreturn]] void unhandled_exception() const noexcept { std::terminate(); }
};

}  // namespace internal

// The result of a coroutine, or a ready value. Owned by whoever called; rules (1) to (6) above.
template <typename T>
class [[nodiscard]] Task {
 public:
  using value_type = T;

  struct promise_type : internal::PromiseBase {
    std::optional<T> value;
    Task get_return_object() {
      return Task(std::coroutine_handle<promise_type>::from_promise(*this));
    }
    template <typename U>
    void return_value(U&& result) {
      value.emplace(std::forward<U>(result));
    }
  };

  // A task that is done already. Implicit, so that `return absl::OkStatus();` works in plain
  // functions.
  Task(T value) : value_(std::move(value)) {}  // NOLINT(google-explicit-constructor)

  Task(Task&& other) noexcept
      : frame_(std::exchange(other.frame_, nullptr)), value_(std::move(other.value_)) {}
  Task& operator=(Task&& other) noexcept {
    if (this != &other) {
      Destroy();
      frame_ = std::exchange(other.frame_, nullptr);
      value_ = std::move(other.value_);
    }
    return *this;
  }
  ~Task() { Destroy(); }

  bool done() const { return frame_ == nullptr || frame_.promise().finished; }

  // The result of a task that is done. Call once, or co_await instead.
  T Take() {
    CHECK(done());
    if (frame_ == nullptr) return std::move(*value_);
    return std::move(*frame_.promise().value);
  }

  auto operator co_await() && { return Awaiter{*this}; }
  auto operator co_await() & { return Awaiter{*this}; }

 private:
  struct Awaiter {
    Task& task;
    bool await_ready() const { return task.done(); }
    void await_suspend(std::coroutine_handle<> waiter) const {
      CHECK(!task.frame_.promise().waiter);
      task.frame_.promise().waiter = waiter;
    }
    T await_resume() const { return task.Take(); }
  };

  explicit Task(std::coroutine_handle<promise_type> frame) : frame_(frame) {}

  void Destroy() {
    if (frame_ == nullptr) return;
    CHECK(frame_.promise().finished);  // rule (2)
    frame_.destroy();
    frame_ = nullptr;
  }

  std::coroutine_handle<promise_type> frame_ = nullptr;
  std::optional<T> value_;
};

template <>
class [[nodiscard]] Task<void> {
 public:
  struct promise_type : internal::PromiseBase {
    Task get_return_object() {
      return Task(std::coroutine_handle<promise_type>::from_promise(*this));
    }
    void return_void() {}
  };

  // A task that is done already.
  Task() = default;
  Task(Task&& other) noexcept : frame_(std::exchange(other.frame_, nullptr)) {}
  Task& operator=(Task&& other) noexcept {
    if (this != &other) {
      Destroy();
      frame_ = std::exchange(other.frame_, nullptr);
    }
    return *this;
  }
  ~Task() { Destroy(); }

  bool done() const { return frame_ == nullptr || frame_.promise().finished; }

  // Hands an unfinished task over: `owner` is called when it finishes and must then destroy the
  // frame.
  void Release(TaskOwner& owner) {
    CHECK(!done());
    frame_.promise().owner = &owner;
    frame_ = nullptr;
  }

  auto operator co_await() && { return Awaiter{*this}; }
  auto operator co_await() & { return Awaiter{*this}; }

 private:
  struct Awaiter {
    Task& task;
    bool await_ready() const { return task.done(); }
    void await_suspend(std::coroutine_handle<> waiter) const {
      CHECK(!task.frame_.promise().waiter);
      task.frame_.promise().waiter = waiter;
    }
    void await_resume() const {}
  };

  explicit Task(std::coroutine_handle<promise_type> frame) : frame_(frame) {}

  void Destroy() {
    if (frame_ == nullptr) return;
    CHECK(frame_.promise().finished);  // rule (2)
    frame_.destroy();
    frame_ = nullptr;
  }

  std::coroutine_handle<promise_type> frame_ = nullptr;
};

}  // namespace gabion::runtime

namespace gabion {
using runtime::Task;
}  // namespace gabion
