#include "engine/block/range_lock.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/base/align.h"
#include "engine/block/staging.h"
#include "engine/runtime/event.h"
#include "engine/runtime/task.h"
#include "engine/runtime/task_set.h"
#include "tests/support/random_source.h"

namespace gabion::block {
namespace {

using runtime::OneShot;
using runtime::ReadyQueue;
using test::RandomSource;

constexpr RangeLockMode kShared = RangeLockMode::kShared;
constexpr RangeLockMode kExclusive = RangeLockMode::kExclusive;

// Holds a range from the time it gets it until told to leave.
struct Holder {
  Holder(RangeLock& lock, ReadyQueue& ready, ByteRange range, RangeLockMode mode)
      : leave(ready), task(Run(*this, lock, range, mode)) {}
  static Task<void> Run(Holder& self, RangeLock& lock, ByteRange range, RangeLockMode mode) {
    const RangeLock::Guard guard = co_await lock.Acquire(range, mode);
    self.inside = true;
    const bool left = co_await self.leave;
    self.inside = !left;
  }
  bool inside = false;
  OneShot<bool> leave;
  Task<void> task;
};

class RangeLockTest : public testing::Test {
 protected:
  Holder& Enter(ByteRange range, RangeLockMode mode) {
    holders_.push_back(std::make_unique<Holder>(lock_, ready_, range, mode));
    ready_.RunUntilIdle();
    return *holders_.back();
  }
  void Leave(Holder& holder) {
    holder.leave.Set(true);
    ready_.RunUntilIdle();
  }

  ReadyQueue ready_;
  RangeLock lock_{ready_};
  std::vector<std::unique_ptr<Holder>> holders_;
};

TEST_F(RangeLockTest, DisjointRangesDoNotWait) {
  Holder& a = Enter(Range(0, 10), kExclusive);
  Holder& b = Enter(Range(10, 10), kExclusive);
  EXPECT_TRUE(a.inside);
  EXPECT_TRUE(b.inside);
  Leave(b);
  Leave(a);
  EXPECT_EQ(lock_.size(), 0u);
}

TEST_F(RangeLockTest, SharedHoldersShareAndExclusiveOnesDoNot) {
  Holder& a = Enter(Range(0, 10), kShared);
  Holder& b = Enter(Range(5, 10), kShared);
  Holder& c = Enter(Range(9, 1), kExclusive);
  EXPECT_TRUE(a.inside && b.inside);
  EXPECT_FALSE(c.inside);
  Leave(a);
  EXPECT_FALSE(c.inside);
  Leave(b);
  EXPECT_TRUE(c.inside);
  Leave(c);
}

TEST_F(RangeLockTest, NewcomersDoNotOvertakeAWaiterTheyConflictWith) {
  Holder& reader = Enter(Range(0, 10), kShared);
  Holder& writer = Enter(Range(0, 10), kExclusive);
  Holder& late_reader = Enter(Range(0, 10), kShared);
  EXPECT_FALSE(late_reader.inside) << "a stream of readers would starve the writer";
  Holder& elsewhere = Enter(Range(10, 10), kShared);
  EXPECT_TRUE(elsewhere.inside);
  Leave(reader);
  EXPECT_TRUE(writer.inside);
  EXPECT_FALSE(late_reader.inside);
  Leave(writer);
  EXPECT_TRUE(late_reader.inside);
  Leave(late_reader);
  Leave(elsewhere);
}

TEST_F(RangeLockTest, AWaiterNeedsAllOfItsRange) {
  Holder& left = Enter(Range(0, 10), kExclusive);
  Holder& right = Enter(Range(20, 10), kExclusive);
  Holder& middle = Enter(Range(5, 20), kExclusive);
  Leave(left);
  EXPECT_FALSE(middle.inside);
  Leave(right);
  EXPECT_TRUE(middle.inside);
  Leave(middle);
}

// Counts who is on each byte; conflicts would show as a mixture.
struct Occupancy {
  int shared[64] = {};
  int exclusive[64] = {};
};

Task<void> Visit(ReadyQueue& ready, RangeLock& lock, RandomSource& random, Occupancy& bytes,
                 ByteRange range, RangeLockMode mode) {
  const RangeLock::Guard guard = co_await lock.Acquire(range, mode);
  for (uint64_t at = range.offset.value; at < range.end().value; ++at) {
    EXPECT_EQ(bytes.exclusive[at], 0);
    if (mode == kExclusive) {
      EXPECT_EQ(bytes.shared[at], 0);
    }
    ++(mode == kShared ? bytes.shared : bytes.exclusive)[at];
  }
  for (uint64_t turns = random.Below(5); turns > 0; --turns) co_await ready.Yield();
  for (uint64_t at = range.offset.value; at < range.end().value; ++at) {
    --(mode == kShared ? bytes.shared : bytes.exclusive)[at];
  }
}

TEST(RangeLockPropertyTest, NobodyMeetsAConflictAndEverybodyFinishes) {
  RandomSource random;
  for (int round = 0; round < 200; ++round) {
    ReadyQueue ready;
    ready.SetChooser(&RandomSource::Choose, &random);
    RangeLock lock(ready);
    Occupancy bytes;
    runtime::TaskSet visitors(ready);
    for (int i = 0; i < 60; ++i) {
      const RangeLockMode mode = random.OneIn(2) ? kShared : kExclusive;
      visitors.Add(Visit(ready, lock, random, bytes, random.RangeWithin(64), mode));
      if (random.OneIn(3)) ready.RunOnce();
    }
    ready.RunUntilIdle();
    EXPECT_EQ(visitors.running(), 0u);
    EXPECT_EQ(lock.size(), 0u);
  }
}

Task<void> UseBuffer(StagingPool& pool, std::size_t size, OneShot<bool>& leave,
                     std::vector<std::size_t>& log) {
  StagingPool::Buffer buffer = co_await pool.Take(size);
  EXPECT_EQ(buffer.bytes().size(), size);
  EXPECT_TRUE(IsMultiple(reinterpret_cast<uintptr_t>(buffer.bytes().data()), 4096));
  log.push_back(size);
  const bool left = co_await leave;
  EXPECT_TRUE(left);
}

TEST(StagingPoolTest, KeepsItsBudgetAndTheOrderOfArrival) {
  ReadyQueue ready;
  StagingPool pool(ready, 1000, 4096);
  std::vector<std::size_t> log;
  OneShot<bool> first_leaves(ready);
  OneShot<bool> others_leave[] = {OneShot<bool>(ready), OneShot<bool>(ready)};
  Task<void> first = UseBuffer(pool, 600, first_leaves, log);
  Task<void> large = UseBuffer(pool, 900, others_leave[0], log);
  Task<void> small = UseBuffer(pool, 1, others_leave[1], log);
  EXPECT_EQ(log, (std::vector<std::size_t>{600})) << "the small one must not overtake";
  first_leaves.Set(true);
  ready.RunUntilIdle();
  EXPECT_EQ(log, (std::vector<std::size_t>{600, 900, 1}));
  EXPECT_EQ(pool.in_use(), 901u);
  others_leave[0].Set(true);
  others_leave[1].Set(true);
  ready.RunUntilIdle();
  EXPECT_TRUE(first.done() && large.done() && small.done());
  EXPECT_EQ(pool.in_use(), 0u);
}

}  // namespace
}  // namespace gabion::block
