// What the throttles of a group share: how much of each limit is left, and who has had how much.
//
// (1) Everything is time. Under a limit of r per second, n units cost n/r seconds of its bucket;
//     a bucket earns a second per second, up to its capacity. So one number is a bucket: when it
//     would be full if nobody took from it again.
// (2) Who takes gets a time from which on it may use what it took; that of the next one is later.
//     So whoever has taken is never overtaken by what comes later, however little that takes.
// (3) Who has had more than the others waits longer, by as much as it has had more: the bucket
//     fills up meanwhile, and those who have had less find something in it at once. If they do not
//     come, nothing is lost.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "engine/filters/throttle.h"

namespace gabion::filters::throttling {

enum class Direction : uint8_t { kRead, kWrite };

// Two buckets for each limit: the average, and what bursts may take per second.
inline constexpr std::size_t kLimits = 6;
inline constexpr std::size_t kBuckets = 2 * kLimits;

// Nanoseconds of each bucket.
using Costs = std::array<int64_t, kBuckets>;

// A line's own part of the arithmetic: what its requests have cost in fractions of a nanosecond.
using Fractions = std::array<uint64_t, kBuckets>;

// Any thread.
class Bucket {
 public:
  // Once, before anybody else uses it. `per_second` is not 0.
  void Open(uint64_t per_second, int64_t capacity);

  bool open() const { return per_second_ > 0; }
  int64_t capacity() const { return capacity_; }

  // What `units` cost, whole nanoseconds; the rest stays in `fraction`.
  int64_t CostOf(uint64_t units, uint64_t& fraction) const;

  // Takes `cost`. The time from which on it may be used, perhaps past.
  int64_t Take(int64_t now, int64_t cost);

  // Takes `cost` if as much as is always allowed at once is left then; false if not.
  bool TakeSpare(int64_t now, int64_t cost);

 private:
  uint64_t per_second_ = 0;
  int64_t capacity_ = 0;
  std::atomic<int64_t> full_at_ = 0;
};

// How what lines take from the same buckets is spread evenly over them. Any thread.
class Turns {
 public:
  // A line's own part.
  struct Place {
    int64_t had = 0;  // as long as `fair_`: what it has taken
    int64_t window = -1;
  };

  // Lines that have taken something lately, this one included; at least 1.
  uint32_t Join(Place& place, int64_t now);

  // How much longer a line must wait that is about to take `cost`, when there are `lines`.
  int64_t Wait(Place& place, uint32_t lines, int64_t cost);

  // Where a line begins that has not taken anything yet.
  Place NewPlace() const { return Place{.had = fair_.load(std::memory_order_relaxed)}; }

 private:
  // What each line would have taken if all had taken the same.
  std::atomic<int64_t> fair_ = 0;
  // Number of a window of time in the upper half, lines in the window before it and in it.
  std::atomic<uint64_t> recent_ = 0;
};

// The budget under one set of options. Shared by the throttles of a group; any thread.
class Budget {
 public:
  Budget(const ThrottleOptions& options, uint64_t generation);
  Budget(const Budget&) = delete;
  Budget& operator=(const Budget&) = delete;

  const ThrottleOptions& options() const { return options_; }
  uint64_t generation() const { return generation_; }

  // True if requests of this kind count for any limit.
  bool Limits(Direction direction) const { return limits_[static_cast<std::size_t>(direction)]; }
  // Where such requests wait. Reads and writes that have no limit in common do not wait for each
  // other.
  std::size_t LineOf(Direction direction) const {
    return together_ ? 0 : static_cast<std::size_t>(direction);
  }

  Costs CostsOf(Direction direction, uint64_t bytes, Fractions& fractions) const;
  Bucket& bucket(std::size_t index) { return buckets_[index]; }
  Turns& turns(std::size_t line) { return turns_[line]; }

 private:
  const ThrottleOptions options_;
  const uint64_t generation_;
  bool together_ = false;
  std::array<bool, 2> limits_{};
  std::array<Bucket, kBuckets> buckets_;
  std::array<Turns, 2> turns_;
};

}  // namespace gabion::filters::throttling
