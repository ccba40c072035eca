#include "engine/filters/throttling/budget.h"

#include <algorithm>

#include "absl/numeric/int128.h"

namespace gabion::filters::throttling {
namespace {

constexpr uint64_t kSecond = 1'000'000'000;
// What is always allowed at once: a tenth of a second.
constexpr int64_t kAlways = kSecond / 10;
// As long as a cost can get, about 30 years, and as far as a bucket can be overdrawn: so that sums
// do not overflow.
constexpr int64_t kLongest = 1'000'000'000 * int64_t{kSecond};
constexpr int64_t kFarthest = 4 * kLongest;
// A line has taken something lately if it has in this window of time or the one before.
constexpr int64_t kWindow = kSecond / 4;
// So far apart, at most, is what lines have had remembered; half of what is always allowed, so that
// those who wait for it leave no budget unused.
constexpr int64_t kMostApart = kAlways / 2;

// Limits in the order of their buckets.
constexpr std::size_t kReadBytes = 0;
constexpr std::size_t kWriteBytes = 1;
constexpr std::size_t kTotalBytes = 2;
constexpr std::size_t kReadOperations = 3;
constexpr std::size_t kWriteOperations = 4;
constexpr std::size_t kTotalOperations = 5;

struct Kind {
  std::size_t bytes;
  std::size_t operations;
};
constexpr Kind kOwn[] = {{kReadBytes, kReadOperations}, {kWriteBytes, kWriteOperations}};
constexpr Kind kTotal{kTotalBytes, kTotalOperations};

bool HasBurst(const Rate& rate) { return rate.burst_per_second > rate.per_second; }

// The average's bucket: what a burst takes beyond the average, so that it lasts as long as it is
// said to.
int64_t CapacityOf(const Rate& rate) {
  if (!HasBurst(rate)) return kAlways;
  const double beyond = static_cast<double>(rate.burst_per_second - rate.per_second) /
                        static_cast<double>(rate.per_second) *
                        static_cast<double>(rate.burst_length.count());
  if (beyond >= static_cast<double>(kLongest)) return kLongest;
  return std::max(kAlways, static_cast<int64_t>(beyond));
}

}  // namespace

void Bucket::Open(uint64_t per_second, int64_t capacity) {
  per_second_ = per_second;
  capacity_ = capacity;
}

int64_t Bucket::CostOf(uint64_t units, uint64_t& fraction) const {
  constexpr uint64_t kFewUnits = uint64_t{1} << 33;  // times a second, plus a fraction: 64 bits
  constexpr uint64_t kLowRate = uint64_t{1} << 62;
  if (units <= kFewUnits && per_second_ <= kLowRate) {
    const uint64_t share = units * kSecond + fraction;
    fraction = share % per_second_;
    return static_cast<int64_t>(std::min<uint64_t>(share / per_second_, kLongest));
  }
  const absl::uint128 share = absl::uint128(units) * kSecond + fraction;
  fraction = absl::Uint128Low64(share % per_second_);
  const absl::uint128 cost = share / per_second_;
  return cost > absl::uint128(kLongest) ? kLongest : static_cast<int64_t>(absl::Uint128Low64(cost));
}

int64_t Bucket::Take(int64_t now, int64_t cost) {
  int64_t full_at = full_at_.load(std::memory_order_relaxed);
  int64_t from = 0;
  int64_t next = 0;
  do {
    from = std::max(full_at, now);
    next = from < kFarthest ? from + cost : from;
  } while (!full_at_.compare_exchange_weak(full_at, next, std::memory_order_relaxed));
  return from + std::min(cost, capacity_) - capacity_;
}

bool Bucket::TakeSpare(int64_t now, int64_t cost) {
  if (cost > capacity_ - kAlways) return false;
  int64_t full_at = full_at_.load(std::memory_order_relaxed);
  int64_t next = 0;
  do {
    next = std::max(full_at, now) + cost;
    if (next > now + capacity_ - kAlways) return false;
  } while (!full_at_.compare_exchange_weak(full_at, next, std::memory_order_relaxed));
  return true;
}

uint32_t Turns::Join(Place& place, int64_t now) {
  const int64_t window = now / kWindow;
  const auto number = static_cast<uint32_t>(window);
  uint64_t recent = recent_.load(std::memory_order_relaxed);
  while (place.window != window) {
    const auto age = static_cast<int32_t>(number - static_cast<uint32_t>(recent >> 32));
    uint64_t next = 0;
    if (age <= 0) {  // others may be ahead
      next = (recent & 0xffff) < 0xffff ? recent + 1 : recent;
    } else {
      const uint64_t before = age == 1 ? recent & 0xffff : 0;
      next = uint64_t{number} << 32 | before << 16 | 1;
    }
    if (recent_.compare_exchange_weak(recent, next, std::memory_order_relaxed)) {
      recent = next;
      place.window = window;
    }
  }
  const auto before = static_cast<uint32_t>(recent >> 16 & 0xffff);
  const auto in_it = static_cast<uint32_t>(recent & 0xffff);
  return std::max({before, in_it, uint32_t{1}});
}

int64_t Turns::Wait(Place& place, uint32_t lines, int64_t cost) {
  int64_t fair =
      fair_.fetch_add(cost / lines, std::memory_order_relaxed);  // before this one took its part
  // Who has been away does not get all of what it has missed.
  place.had = std::max(place.had, fair - kMostApart);
  const int64_t ahead = std::clamp<int64_t>(place.had - fair, 0, kMostApart);
  place.had += cost;
  if (lines == 1) {
    place.had = fair + cost;
    return 0;
  }
  // Lines that take less than their share hold `fair_` back; the others must stay comparable.
  fair += cost / lines;
  while (place.had - kMostApart > fair &&
         !fair_.compare_exchange_weak(fair, place.had - kMostApart, std::memory_order_relaxed)) {
  }
  return ahead;
}

Budget::Budget(const ThrottleOptions& options, uint64_t generation)
    : options_(options), generation_(generation) {
  const Rate* const rates[kLimits] = {&options_.read_bytes,       &options_.write_bytes,
                                      &options_.total_bytes,      &options_.read_operations,
                                      &options_.write_operations, &options_.total_operations};
  for (std::size_t i = 0; i < kLimits; ++i) {
    if (rates[i]->per_second == 0) continue;
    buckets_[2 * i].Open(rates[i]->per_second, CapacityOf(*rates[i]));
    if (HasBurst(*rates[i])) buckets_[2 * i + 1].Open(rates[i]->burst_per_second, kAlways);
  }
  const auto open = [this](Kind kind) {
    return buckets_[2 * kind.bytes].open() || buckets_[2 * kind.operations].open();
  };
  together_ = open(kTotal);
  limits_ = {together_ || open(kOwn[0]), together_ || open(kOwn[1])};
}

Costs Budget::CostsOf(Direction direction, uint64_t bytes, Fractions& fractions) const {
  const uint64_t unit = options_.operation_unit;
  const uint64_t operations =
      unit == 0 ? 1 : std::max<uint64_t>(1, bytes / unit + (bytes % unit == 0 ? 0 : 1));
  Costs costs{};
  const auto add = [&](std::size_t limit, uint64_t units) {
    for (std::size_t i = 2 * limit; i < 2 * limit + 2; ++i) {
      if (buckets_[i].open()) costs[i] = buckets_[i].CostOf(units, fractions[i]);
    }
  };
  for (const Kind& kind : {kOwn[static_cast<std::size_t>(direction)], kTotal}) {
    add(kind.bytes, bytes);
    add(kind.operations, operations);
  }
  return costs;
}

}  // namespace gabion::filters::throttling
