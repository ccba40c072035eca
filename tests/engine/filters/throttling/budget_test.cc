#include "engine/filters/throttling/budget.h"

#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <cstdint>

#include "tests/support/random_source.h"

namespace gabion::filters::throttling {
namespace {

constexpr int64_t kSecond = 1'000'000'000;
constexpr int64_t kMillisecond = 1'000'000;

TEST(BucketTest, FractionsOfANanosecondAddUp) {
  const struct {
    uint64_t per_second, units;
  } cases[] = {{3'000'000'000, 1}, {7, 3}, {1'000'000'000'000'000, 512}, {999'999'999'999, 4097}};
  for (const auto& [per_second, units] : cases) {
    Bucket bucket;
    bucket.Open(per_second, kSecond);
    uint64_t fraction = 0;
    int64_t sum = 0;
    constexpr int64_t kTimes = 100'000;
    for (int64_t i = 0; i < kTimes; ++i) sum += bucket.CostOf(units, fraction);
    const double exact = static_cast<double>(kTimes) * static_cast<double>(units) * 1e9 /
                         static_cast<double>(per_second);
    EXPECT_NEAR(static_cast<double>(sum), exact, 1 + exact * 1e-12) << per_second;
  }
}

TEST(BucketTest, LargeCostsHaveABound) {
  Bucket bucket;
  uint64_t fraction = 0;
  bucket.Open(1, kSecond);
  const int64_t most = bucket.CostOf(~uint64_t{0}, fraction);
  EXPECT_GT(most, int64_t{30} * 365 * 86'400 * kSecond);
  EXPECT_EQ(bucket.CostOf(uint64_t{1} << 33, fraction), most);
  int64_t due = 0;
  for (int i = 0; i < 100; ++i) {
    const int64_t next = bucket.Take(0, most);
    EXPECT_GE(next, due);
    due = next;
  }
  EXPECT_GT(due, most);
}

TEST(BucketTest, BothWaysToDivideAgree) {
  test::RandomSource random;
  for (int i = 0; i < 1000; ++i) {
    const uint64_t per_second = random.Between(1, 1'000'000'000'000'000);
    Bucket bucket;
    bucket.Open(per_second, kSecond);
    uint64_t whole_fraction = 0;
    uint64_t parts_fraction = 0;
    const uint64_t part = random.Between(1, uint64_t{1} << 33);
    const int64_t whole = bucket.CostOf(part * 5, whole_fraction);
    int64_t parts = 0;
    for (int j = 0; j < 5; ++j) parts += bucket.CostOf(part, parts_fraction);
    if (whole >= kSecond * kSecond || parts >= kSecond * kSecond) continue;  // the bound
    EXPECT_EQ(parts, whole) << part << " at " << per_second;
    EXPECT_EQ(parts_fraction, whole_fraction);
  }
}

TEST(BucketTest, WhatIsTakenMayBeUsedWhenItIsThere) {
  Bucket bucket;
  bucket.Open(1000, 100 * kMillisecond);
  const int64_t now = 5 * kSecond;
  EXPECT_LE(bucket.Take(now, 60 * kMillisecond), now);
  EXPECT_LE(bucket.Take(now, 40 * kMillisecond), now);
  EXPECT_EQ(bucket.Take(now, 10 * kMillisecond), now + 10 * kMillisecond);
  EXPECT_EQ(bucket.Take(now, 10 * kMillisecond), now + 20 * kMillisecond);
  // It fills up to its capacity and no further.
  EXPECT_EQ(bucket.Take(now + 10 * kSecond, 100 * kMillisecond), now + 10 * kSecond);
  EXPECT_EQ(bucket.Take(now + 10 * kSecond, kMillisecond), now + 10 * kSecond + kMillisecond);
}

TEST(BucketTest, MoreThanTheCapacityIsThereWhenTheBucketIsFull) {
  Bucket bucket;
  bucket.Open(1000, 100 * kMillisecond);
  EXPECT_EQ(bucket.Take(kSecond, 300 * kMillisecond), kSecond);
  EXPECT_EQ(bucket.Take(kSecond, 300 * kMillisecond), kSecond + 300 * kMillisecond);
}

TEST(BucketTest, SpareIsWhatLeavesWhatIsAlwaysAllowed) {
  Bucket bucket;
  bucket.Open(1000, kSecond);
  EXPECT_FALSE(bucket.TakeSpare(0, 901 * kMillisecond));
  EXPECT_TRUE(bucket.TakeSpare(0, 500 * kMillisecond));
  EXPECT_TRUE(bucket.TakeSpare(0, 400 * kMillisecond));
  EXPECT_FALSE(bucket.TakeSpare(0, 1));
  EXPECT_EQ(bucket.Take(0, 100 * kMillisecond), 0);
  EXPECT_FALSE(bucket.TakeSpare(900 * kMillisecond, 801 * kMillisecond));
  EXPECT_TRUE(bucket.TakeSpare(900 * kMillisecond, 800 * kMillisecond));
}

TEST(TurnsTest, LinesOfLatelyAreCountedOnce) {
  Turns turns;
  std::array<Turns::Place, 3> places;
  EXPECT_EQ(turns.Join(places[0], 0), 1u);
  EXPECT_EQ(turns.Join(places[0], kMillisecond), 1u);
  EXPECT_EQ(turns.Join(places[1], kMillisecond), 2u);
  EXPECT_EQ(turns.Join(places[2], kMillisecond), 3u);
  EXPECT_EQ(turns.Join(places[0], 2 * kMillisecond), 3u);
  // The next window of time: those of the last one still count.
  EXPECT_EQ(turns.Join(places[0], 251 * kMillisecond), 3u);
  EXPECT_EQ(turns.Join(places[0], 501 * kMillisecond), 1u);
  EXPECT_EQ(turns.Join(places[1], 10 * kSecond), 1u);
  // One that is late counts, too, and does not turn time back.
  EXPECT_EQ(turns.Join(places[2], 9 * kSecond), 2u);
  EXPECT_EQ(turns.Join(places[0], 10 * kSecond), 3u);
}

TEST(TurnsTest, WhoHasHadMoreWaitsAsMuchLonger) {
  Turns turns;
  Turns::Place a = turns.NewPlace();
  Turns::Place b = turns.NewPlace();
  EXPECT_EQ(turns.Wait(a, 2, 10 * kMillisecond), 0);
  EXPECT_EQ(turns.Wait(a, 2, 10 * kMillisecond), 5 * kMillisecond);
  EXPECT_EQ(turns.Wait(b, 2, 20 * kMillisecond), 0);
  EXPECT_EQ(turns.Wait(a, 2, kMillisecond), 0);
  EXPECT_EQ(turns.Wait(b, 1, kSecond), 0);  // alone
}

TEST(BudgetTest, ReadsAndWritesWaitTogetherUnderATotalLimitOnly) {
  const Budget apart({.read_bytes = {.per_second = 5}, .write_operations = {.per_second = 5}}, 1);
  EXPECT_NE(apart.LineOf(Direction::kRead), apart.LineOf(Direction::kWrite));
  EXPECT_TRUE(apart.Limits(Direction::kRead));
  EXPECT_TRUE(apart.Limits(Direction::kWrite));
  const Budget together({.total_operations = {.per_second = 5}}, 1);
  EXPECT_EQ(together.LineOf(Direction::kRead), together.LineOf(Direction::kWrite));
  EXPECT_TRUE(together.Limits(Direction::kRead));
  const Budget reads({.read_operations = {.per_second = 5}}, 1);
  EXPECT_TRUE(reads.Limits(Direction::kRead));
  EXPECT_FALSE(reads.Limits(Direction::kWrite));
}

}  // namespace
}  // namespace gabion::filters::throttling
