// A turnstile counts who is inside and can be held: newcomers then wait in the order of their
// arrival while those inside leave. Live changes to a disk's tree happen while it is held and
// empty.
#pragma once

#include <coroutine>
#include <cstddef>
#include <deque>
#include <utility>

#include "engine/base/check.h"
#include "engine/runtime/clock.h"
#include "engine/runtime/event.h"
#include "engine/runtime/ready_queue.h"
#include "engine/runtime/task.h"

namespace gabion::runtime {

// Owned by what it guards; used on one shard. Every Enter() is paired with a Leave() by its Pass.
class Turnstile {
 public:
  // Being inside; leaves when destroyed. Movable, so that it can travel into the task that it
  // covers.
  class [[nodiscard]] Pass {
   public:
    Pass() = default;
    explicit Pass(Turnstile& turnstile) : turnstile_(&turnstile) {}
    Pass(Pass&& other) noexcept : turnstile_(std::exchange(other.turnstile_, nullptr)) {}
    Pass& operator=(Pass&& other) noexcept {
      std::swap(turnstile_, other.turnstile_);
      return *this;
    }
    ~Pass() {
      if (turnstile_ != nullptr) turnstile_->Leave();
    }

   private:
    Turnstile* turnstile_ = nullptr;
  };

  explicit Turnstile(ReadyQueue& ready) : ready_(ready), emptied_(ready) {}
  Turnstile(const Turnstile&) = delete;
  Turnstile& operator=(const Turnstile&) = delete;
  ~Turnstile() {
    CHECK_EQ(inside_, 0u);
    CHECK(queue_.empty());
  }

  // co_await turnstile.Enter() -> Pass. Does not suspend unless the turnstile is held.
  auto Enter() {
    struct Awaiter {
      Turnstile& turnstile;
      bool queued = false;
      bool await_ready() const { return !turnstile.held_; }
      void await_suspend(std::coroutine_handle<> waiter) {
        queued = true;
        turnstile.queue_.push_back(waiter);
      }
      Pass await_resume() {
        if (!queued) ++turnstile.inside_;  // Resume() has counted those that it let in
        return Pass(turnstile);
      }
    };
    return Awaiter{*this};
  }

  bool held() const { return held_; }
  std::size_t inside() const { return inside_; }

  // From now on newcomers wait. Drain() then waits until nobody is inside. One holder at a time.
  void Hold() {
    CHECK(!held_);
    held_ = true;
  }
  Task<void> Drain() {
    CHECK(held_);
    while (inside_ > 0) co_await emptied_.Wait();
  }

  // The same until `deadline` at most; true if nobody is inside.
  Task<bool> DrainUntil(Clock& clock, Instant deadline) {
    CHECK(held_);
    struct Alarm final : Clock::Timer {
      explicit Alarm(Signal& to_wake) : signal(to_wake) {}
      void Fire() override {
        fired = true;
        signal.WakeAll();
      }
      Signal& signal;
      bool fired = false;
    };
    if (inside_ == 0) co_return true;
    Alarm alarm(emptied_);
    clock.Schedule(alarm, deadline);
    while (inside_ > 0 && !alarm.fired) co_await emptied_.Wait();
    clock.Cancel(alarm);
    co_return inside_ == 0;
  }

  // Lets everybody in who waited, in order.
  void Resume() {
    CHECK(held_);
    held_ = false;
    while (!queue_.empty()) {
      ++inside_;
      ready_.Push(queue_.front());
      queue_.pop_front();
    }
  }

 private:
  void Leave() {
    CHECK_GT(inside_, 0u);
    if (--inside_ == 0) emptied_.WakeAll();
  }

  ReadyQueue& ready_;
  Signal emptied_;
  std::deque<std::coroutine_handle<>> queue_;
  std::size_t inside_ = 0;
  bool held_ = false;
};

}  // namespace gabion::runtime
