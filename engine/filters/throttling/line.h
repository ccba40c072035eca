// Where requests of one throttle wait.
#pragma once

#include <array>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <deque>

#include "engine/filters/throttling/budget.h"
#include "engine/runtime/clock.h"
#include "engine/runtime/ready_queue.h"

namespace gabion::filters::throttling {

// Of all requests of a throttle that waited.
struct Waits {
  // How often a time of at most so many microseconds occurred, and all of it together.
  static constexpr std::array<uint64_t, 6> kBounds = {100,     1'000,     10'000,
                                                      100'000, 1'000'000, ~uint64_t{0}};
  std::array<uint64_t, kBounds.size()> counts{};
  uint64_t sum_us = 0;
  // Have been let go and have not run yet.
  std::size_t going = 0;

  void Add(runtime::Duration time);
};

// Requests in the order of their arrival. Only the first one takes anything from the budget, in
// pieces so small that other lines get theirs in between, unless a burst has plenty left:
//
// (1) before it goes, what it costs, but of no bucket more than fits into it;
// (2) after it has gone, the rest, which is then owed. The line pays that also while nobody waits,
//     and nobody goes before it is paid.
//
// Owned by a throttle; used on its shard. Nobody waits any more when it is destroyed.
class Line final : private runtime::Clock::Timer {
 public:
  // A request that waits, or is about to.
  struct Request {
    Direction direction = Direction::kRead;
    uint64_t bytes = 0;
    uint64_t number = 0;  // requests of a throttle in the order of their arrival
    runtime::Instant since{};
    std::coroutine_handle<> waiter = nullptr;
  };

  // All outlive the line. `waits` is common to the lines of a throttle.
  Line(runtime::ReadyQueue& ready, runtime::Clock& clock, Waits& waits)
      : ready_(ready), clock_(clock), waits_(waits) {}
  Line(const Line&) = delete;
  Line& operator=(const Line&) = delete;
  ~Line();

  // Draws on `budget` from now on, which outlives the line or is replaced; forgets what it has
  // taken from another one, and what it owes. Nobody waits: TakeAll() comes before, Join() after.
  void Use(Budget& budget, std::size_t line);
  std::deque<Request> TakeAll();

  // Nobody waits, or is about to go.
  bool empty() const { return requests_.empty() && waits_.going == 0; }

  // True: the request may go at once. Otherwise it is the last in the line, and the caller must
  // co_await Turn() before anything else happens here.
  bool Join(Direction direction, uint64_t bytes, uint64_t number);
  auto Turn() {
    struct Awaiter {
      Line& line;
      bool await_ready() const noexcept { return false; }
      void await_suspend(std::coroutine_handle<> waiter) const { line.Await(waiter); }
      void await_resume() const noexcept { --line.waits_.going; }
    };
    return Awaiter{*this};
  }

  // Puts a request with its waiter back into the line.
  void Return(const Request& request) { requests_.push_back(request); }
  // Lets go whoever may go, and sees to it that the others will.
  void Advance();

 private:
  void Fire() override;
  void Await(std::coroutine_handle<> waiter);
  // True if something is to be paid before the next step.
  bool Owes() const;
  // Takes a piece of what is owed; sets due_ if it has to be waited for.
  void TakePiece(int64_t now);
  void BeginFirst();
  void LetFirstGo(runtime::Instant now);

  runtime::ReadyQueue& ready_;
  runtime::Clock& clock_;
  Waits& waits_;
  Budget* budget_ = nullptr;
  Turns* turns_ = nullptr;
  Turns::Place place_;
  Fractions fractions_{};

  std::deque<Request> requests_;
  bool begun_ = false;      // the first request: owed_ and rest_ are what it costs
  Costs owed_{};            // to be taken from the budget
  Costs rest_{};            // owed when the first request has gone
  bool taken_ = false;      // a piece, which may be used from due_ on
  runtime::Instant due_{};  // if taken_
  bool passed_ = false;     // the last one, which has no waiter yet
};

}  // namespace gabion::filters::throttling
