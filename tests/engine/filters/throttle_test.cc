#include "engine/filters/throttle.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "tests/engine/filters/throttle_fixture.h"

namespace gabion::filters {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using test::NodeCall;
using testing::ElementsAre;

constexpr uint64_t kMB = 1'000'000;
constexpr uint64_t kMostRate = 1'000'000'000'000'000;

// Both within `share` of `expected`.
void ExpectNear(uint64_t actual, double expected, double share) {
  EXPECT_NEAR(static_cast<double>(actual), expected, share * expected);
}

class ThrottleTest : public testing::Test, protected ThrottleFixture {
 protected:
  ~ThrottleTest() override { Finish(); }

  // Starts a read of `bytes` that says so in `done`.
  void Start(ThrottledDisk& disk, uint64_t bytes, int id) { tasks_.Add(Read(disk, bytes, id)); }
  void StartWrite(ThrottledDisk& disk, uint64_t bytes, int id) {
    tasks_.Add(Discard(disk, bytes, id));
  }

  std::vector<int> done_;

 private:
  Task<void> Read(ThrottledDisk& disk, uint64_t bytes, int id) {
    const MutableBytes dst = MutableBytes(disk.buffer).first(bytes);
    absl::Status status = co_await disk.node->Read(Range(0, bytes), dst);
    EXPECT_TRUE(status.ok());
    done_.push_back(id);
  }
  Task<void> Discard(ThrottledDisk& disk, uint64_t bytes, int id) {
    absl::Status status = co_await disk.node->Discard(Range(0, bytes));
    EXPECT_TRUE(status.ok());
    done_.push_back(id);
  }

  runtime::TaskSet tasks_{ready};
};

TEST_F(ThrottleTest, ADiskReachesItsRateAtAnyDepthWithAnyLength) {
  for (const uint64_t rate : {20 * kMB, 200 * kMB}) {
    for (const uint64_t bytes : {4 * kKiB, 64 * kKiB, kMiB}) {
      for (const int depth : {1, 4, 64}) {
        ThrottleFixture fixture;
        ThrottledDisk& disk = fixture.AddDisk();
        fixture.Configure({.read_bytes = {.per_second = rate}});
        disk.StartReaders(bytes, depth);
        fixture.Advance(10);
        SCOPED_TRACE(testing::Message() << rate << " " << bytes << " " << depth);
        ExpectNear(disk.read, 10.0 * static_cast<double>(rate), 0.05);
      }
    }
  }
}

TEST_F(ThrottleTest, OperationsReachTheirRate) {
  ThrottledDisk& disk = AddDisk();
  Configure({.read_operations = {.per_second = 500}});
  disk.StartReaders(4096, 8);
  Advance(10);
  ExpectNear(disk.requests, 5000, 0.02);
}

TEST_F(ThrottleTest, ATenthOfASecondGoesAtOnceAndTheRestAtTheRate) {
  ThrottledDisk& disk = AddDisk();
  Configure({.read_bytes = {.per_second = 4096 * 1000}});
  disk.StartReaders(4096, 8);
  Advance(0);
  EXPECT_EQ(disk.requests, 100u);
  Advance(0.5);
  EXPECT_EQ(disk.requests, 600u);
}

TEST_F(ThrottleTest, AThreadThatIsLateCatchesUp) {
  ThrottledDisk& disk = AddDisk();
  Configure({.read_bytes = {.per_second = 4096 * 1000}});
  disk.StartReaders(4096, 8);
  Advance(0);
  for (int i = 0; i < 100; ++i) {
    clock.Skip(milliseconds(37));
    Advance(0);
  }
  EXPECT_EQ(disk.requests, 100u + 3700u);
}

TEST_F(ThrottleTest, ABurstLastsAsLongAsItIsSaidTo) {
  ThrottledDisk& disk = AddDisk();
  Configure(
      {.read_bytes = {
           .per_second = 10 * kMB, .burst_per_second = 50 * kMB, .burst_length = seconds(2)}});
  disk.StartReaders(4 * kKiB, 4);
  Advance(1);
  ExpectNear(disk.read, 55e6, 0.02);  // with the tenth of a second at once
  Advance(1);
  ExpectNear(disk.read, 100e6, 0.02);
  Advance(3);
  ExpectNear(disk.read, 130e6, 0.02);
}

TEST_F(ThrottleTest, APauseEarnsABurst) {
  const Rate rate{.per_second = 10 * kMB, .burst_per_second = 50 * kMB, .burst_length = seconds(2)};
  ThrottledDisk& before = AddDisk();
  ThrottledDisk& after = AddDisk();
  Configure({.read_bytes = rate});
  before.StartReaders(4 * kKiB, 4);
  Advance(10);
  before.Stop();
  Advance(4);  // half of what a burst takes beyond the average: 40 of 80 MB
  EXPECT_EQ(before.clients(), 0u);
  after.StartReaders(4 * kKiB, 4);
  Advance(1);
  ExpectNear(after.read, 50e6, 0.02);
  Advance(1);
  ExpectNear(after.read, 60e6, 0.02);
}

TEST_F(ThrottleTest, EachLimitHoldsByItself) {
  ThrottledDisk& disk = AddDisk();
  Configure({.read_bytes = {.per_second = 10 * kMB}, .write_bytes = {.per_second = 30 * kMB}});
  disk.StartReaders(64 * kKiB, 8);
  disk.StartDiscarders(64 * kKiB, 8);
  Advance(10);
  ExpectNear(disk.read, 100e6, 0.02);
  ExpectNear(disk.discarded, 300e6, 0.02);
}

TEST_F(ThrottleTest, ATotalLimitCountsReadsAndWrites) {
  ThrottledDisk& disk = AddDisk();
  Configure({.total_bytes = {.per_second = 40 * kMB}});
  disk.StartReaders(64 * kKiB, 8);
  disk.StartDiscarders(64 * kKiB, 8);
  Advance(10);
  ExpectNear(disk.read + disk.discarded, 400e6, 0.02);
  ExpectNear(disk.read, 200e6, 0.05);  // they wait together, and each has eight
}

TEST_F(ThrottleTest, OfSeveralLimitsTheTightestHolds) {
  ThrottledDisk& disk = AddDisk();
  Configure({.read_bytes = {.per_second = 100 * kMB},
             .total_bytes = {.per_second = 50 * kMB},
             .total_operations = {.per_second = 300}});
  disk.StartReaders(64 * kKiB, 8);
  Advance(10);
  ExpectNear(disk.requests, 3000, 0.02);
  Configure({.read_bytes = {.per_second = 100 * kMB},
             .total_bytes = {.per_second = 50 * kMB},
             .total_operations = {.per_second = 3000}});
  const uint64_t before = disk.read;
  Advance(10);
  ExpectNear(disk.read - before, 500e6, 0.02);
}

TEST_F(ThrottleTest, ALongRequestIsAnOperationForEachBegunUnit) {
  ThrottledDisk& disk = AddDisk();
  Configure({.write_operations = {.per_second = 1000}, .operation_unit = 16384});
  disk.StartDiscarders(16384 * 3 + 1, 8);
  Advance(10);
  ExpectNear(disk.requests, 2500, 0.02);
}

TEST_F(ThrottleTest, ZerosDiscardsAndWritesAreWrites) {
  ThrottledDisk& disk = AddDisk();
  Configure({.write_operations = {.per_second = 20}});
  const std::vector<std::byte> bytes(512);
  EXPECT_TRUE(disk.node->Zero(Range(0, 512), {}).Take().ok());
  EXPECT_TRUE(disk.node->Discard(Range(0, 512)).Take().ok());
  Task<absl::Status> write = disk.node->Write(Range(0, 512), bytes, {.durable = true});
  EXPECT_FALSE(write.done());
  Advance(0.05);
  EXPECT_TRUE(write.Take().ok());
  EXPECT_TRUE(disk.disk.calls().back().durable);
  Task<absl::Status> zero = disk.node->Zero(Range(0, 512), {});
  Task<absl::Status> discard = disk.node->Discard(Range(0, 512));
  EXPECT_FALSE(zero.done());
  EXPECT_FALSE(discard.done());
  Advance(0.1);
  EXPECT_TRUE(zero.Take().ok());
  EXPECT_TRUE(discard.Take().ok());
}

TEST_F(ThrottleTest, WhatNoLimitCountsDoesNotWait) {
  ThrottledDisk& disk = AddDisk();
  Configure({.write_bytes = {.per_second = 1}, .write_operations = {.per_second = 1}});
  Start(disk, kMiB, 1);
  StartWrite(disk, 4096, 2);  // takes the budget of more than an hour
  StartWrite(disk, 4096, 3);
  Start(disk, kMiB, 4);
  EXPECT_TRUE(disk.node->Flush().Take().ok());
  EXPECT_TRUE(disk.node->Cache(Range(0, 512)).Take().ok());
  EXPECT_TRUE(disk.node->BlockStatus(Range(0, 512), 1).Take().ok());
  Advance(1);
  EXPECT_THAT(done_, ElementsAre(1, 2, 4));
}

TEST_F(ThrottleTest, NoLimitsAreNoLimits) {
  ThrottledDisk& disk = AddDisk();
  Configure({.read_bytes = {.per_second = 0, .burst_per_second = 5}, .operation_unit = 1});
  for (int i = 0; i < 1000; ++i) Start(disk, kMiB, i);
  EXPECT_EQ(done_.size(), 1000u);
}

TEST_F(ThrottleTest, RequestsGoInTheirOrder) {
  ThrottledDisk& disk = AddDisk();
  Configure({.total_bytes = {.per_second = 10 * kMB}, .total_operations = {.per_second = 40}});
  test::RandomSource random;
  std::vector<int> expected;
  for (int i = 0; i < 200; ++i) {
    const uint64_t bytes = random.PowerOfTwo(512, kMiB);
    expected.push_back(i);
    if (random.OneIn(2)) {
      Start(disk, bytes, i);
    } else {
      StartWrite(disk, bytes, i);
    }
    if (random.OneIn(8)) Advance(0.02);
  }
  EXPECT_LT(done_.size(), 200u);
  Advance(60);
  EXPECT_EQ(done_, expected);
}

TEST_F(ThrottleTest, ANewRequestDoesNotOvertakeThoseThatAreAboutToGo) {
  ThrottledDisk& disk = AddDisk();
  Configure({.read_operations = {.per_second = 10}});
  for (int i = 0; i < 4; ++i) Start(disk, 512, i);
  // As soon as they may go, and before they do, another one comes.
  Configure({});
  Start(disk, 512, 4);
  ready.RunUntilIdle();
  EXPECT_THAT(done_, ElementsAre(0, 1, 2, 3, 4));
}

TEST_F(ThrottleTest, WhatIsMoreThanABurstGoesWhenTheBudgetIsFullAndIsPaidBack) {
  ThrottledDisk& disk = AddDisk();
  Configure({.read_bytes = {.per_second = 100'000}});  // 10,000 at once
  Start(disk, 200'000, 1);
  EXPECT_THAT(done_, ElementsAre(1));
  Start(disk, 1, 2);  // 190,000 are owed
  Advance(1.899);
  EXPECT_THAT(done_, ElementsAre(1));
  Advance(0.002);
  EXPECT_THAT(done_, ElementsAre(1, 2));
  Start(disk, 200'000, 3);  // nothing is left
  Advance(0.098);
  EXPECT_THAT(done_, ElementsAre(1, 2));
  Advance(0.002);
  EXPECT_THAT(done_, ElementsAre(1, 2, 3));
}

TEST_F(ThrottleTest, WhatIsOwedIsPaidAlsoWhileNobodyWaits) {
  ThrottledDisk& disk = AddDisk();
  ThrottledDisk& other = AddDisk();
  Configure({.read_bytes = {.per_second = 100'000}});
  Start(disk, 200'000, 1);
  Advance(0.9);
  other.StartReaders(1000, 4);
  Advance(2);
  // Of 2.9 s one and nine tenths are paid for the first request; nothing is lost.
  ExpectNear(other.read, 100'000 * (2.9 - 1.9) + 0, 0.12);
}

TEST_F(ThrottleTest, AThrottleThatIsReplacedLeavesWhatItOwesToTheGroup) {
  ThrottledDisk& other = AddDisk();
  Configure({.read_bytes = {.per_second = 100'000}});
  test::MemoryNode memory({.size = kMiB});
  std::vector<std::byte> buffer(200'000);
  {
    auto node = NewThrottle(memory, Environment{ready, clock, NullLogger(), "x"}, *group);
    EXPECT_TRUE(node->Read(Range(0, 200'000), buffer).Take().ok());
  }
  EXPECT_EQ(clock.pending(), 0u);
  Start(other, 1000, 1);
  Advance(1.89);
  EXPECT_TRUE(done_.empty());
  Advance(0.02);
  EXPECT_THAT(done_, ElementsAre(1));
}

TEST_F(ThrottleTest, RaisingATinyLimitLetsThoseThatWaitGoAtOnce) {
  ThrottledDisk& disk = AddDisk();
  ThrottledDisk& other = AddDisk();
  Configure({.total_operations = {.per_second = 1}});
  for (int i = 0; i < 8; ++i) Start(i % 2 == 0 ? disk : other, 4096, i);
  Advance(0.5);
  EXPECT_LE(done_.size(), 2u);
  Configure({.total_operations = {.per_second = 1000}});
  ready.RunUntilIdle();
  EXPECT_EQ(done_.size(), 8u);
}

TEST_F(ThrottleTest, ALimitThatIsTakenAwayLetsThemGo) {
  ThrottledDisk& disk = AddDisk();
  Configure({.total_bytes = {.per_second = 1}});
  for (int i = 0; i < 50; ++i) Start(disk, 4096, i);
  for (int i = 50; i < 100; ++i) StartWrite(disk, 4096, i);
  Advance(100);
  EXPECT_THAT(done_, ElementsAre(0));
  Configure({});
  ready.RunUntilIdle();
  EXPECT_EQ(done_.size(), 100u);
  EXPECT_TRUE(std::is_sorted(done_.begin(), done_.end()));
}

TEST_F(ThrottleTest, ChangedRatesHoldForThoseThatWait) {
  ThrottledDisk& disk = AddDisk();
  Configure({.read_bytes = {.per_second = 100 * kMB}});
  disk.StartReaders(64 * kKiB, 32);
  Advance(5);
  Configure({.read_bytes = {.per_second = 10 * kMB}});
  uint64_t before = disk.read;
  Advance(10);
  ExpectNear(disk.read - before, 100e6, 0.03);
  Configure({.read_bytes = {.per_second = 300 * kMB}});
  before = disk.read;
  Advance(10);
  ExpectNear(disk.read - before, 3000e6, 0.03);
}

TEST_F(ThrottleTest, ReadsAndWritesThatWaitTogetherOnlyNowKeepTheirOrder) {
  ThrottledDisk& disk = AddDisk();
  Configure({.read_operations = {.per_second = 1}, .write_operations = {.per_second = 1}});
  for (int i = 0; i < 20; ++i) {
    if (i % 4 < 2) {
      Start(disk, 512, i);
    } else {
      StartWrite(disk, 512, i);
    }
  }
  EXPECT_THAT(done_, ElementsAre(0, 2));
  Configure({.total_operations = {.per_second = 5}});
  Advance(10);
  EXPECT_THAT(done_,
              ElementsAre(0, 2, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19));
}

TEST_F(ThrottleTest, TheSameOptionsAgainDoNotForgetWhatIsUsedUp) {
  ThrottledDisk& disk = AddDisk();
  const ThrottleOptions options{.read_bytes = {.per_second = 10 * kMB}};
  Configure(options);
  disk.StartReaders(64 * kKiB, 4);
  for (int i = 0; i < 1000; ++i) {
    Configure(options);
    Advance(0.01);
  }
  ExpectNear(disk.read, 100e6, 0.02);
}

TEST_F(ThrottleTest, AThrottleNoticesWhatOthersHaveConfigured) {
  ThrottledDisk& disk = AddDisk();
  group->Configure({.read_operations = {.per_second = 10}});
  Start(disk, 512, 1);
  Start(disk, 512, 2);
  EXPECT_THAT(done_, ElementsAre(1));
  group->Configure({});
  Start(disk, 512, 3);  // its own news for those that wait
  ready.RunUntilIdle();
  EXPECT_THAT(done_, ElementsAre(1, 2, 3));
}

TEST_F(ThrottleTest, HugeRatesAndLengthsDoNotOverflow) {
  ThrottledDisk& disk = AddDisk();
  Configure({.read_bytes = {.per_second = kMostRate,
                            .burst_per_second = kMostRate,
                            .burst_length = std::chrono::hours(1)},
             .total_bytes = {.per_second = 1,
                             .burst_per_second = kMostRate,
                             .burst_length = std::chrono::hours(1)},
             .total_operations = {.per_second = kMostRate},
             .operation_unit = 1});
  Advance(3e8);
  for (int i = 0; i < 100; ++i) Start(disk, kMiB, i);
  Advance(1);
  EXPECT_EQ(done_.size(), 100u);
}

TEST_F(ThrottleTest, TinyRatesAndHugeLengthsDoNotOverflow) {
  // A disk of 4 EiB that does nothing: what is long here are discards.
  class Nothing final : public block::Node {
   public:
    Nothing() : Node(block::Limits{.size = ByteCount{uint64_t{1} << 62}, .writable = true}) {}

   private:
    Task<absl::Status> DoRead(ByteRange, MutableBytes) override { return absl::OkStatus(); }
    Task<absl::Status> DoWrite(ByteRange, Bytes, block::WriteOptions) override {
      return absl::OkStatus();
    }
    Task<absl::Status> DoZero(ByteRange, block::ZeroOptions) override { return absl::OkStatus(); }
    Task<absl::Status> DoDiscard(ByteRange) override { return absl::OkStatus(); }
    Task<absl::Status> DoFlush() override { return absl::OkStatus(); }
    Task<absl::Status> DoCache(ByteRange) override { return absl::OkStatus(); }
    Task<absl::StatusOr<block::ExtentList>> DoBlockStatus(ByteRange, std::size_t) override {
      return absl::StatusOr<block::ExtentList>(block::ExtentList{});
    }
    Task<absl::Status> DoClose() override { return absl::OkStatus(); }
  } nothing;
  const ByteRange all = Range(0, uint64_t{1} << 62);
  Configure({.write_bytes = {.per_second = 1}, .operation_unit = 1});
  // Each leaves decades of debt to the group, and each of many has a turn.
  std::vector<std::unique_ptr<LiveFilter<ThrottleOptions>>> nodes;
  std::vector<Task<absl::Status>> discards;
  for (int i = 0; i < 30; ++i) {
    nodes.push_back(NewThrottle(nothing, Environment{ready, clock, NullLogger(), "x"}, *group));
    discards.push_back(nodes.back()->Discard(all));
  }
  Advance(10);
  for (const Task<absl::Status>& discard : discards) EXPECT_TRUE(discard.done());
  for (int i = 0; i < 30; ++i) nodes.erase(nodes.begin());
  auto node = NewThrottle(nothing, Environment{ready, clock, NullLogger(), "x"}, *group);
  Task<absl::Status> last = node->Discard(Range(0, 1));
  Advance(1000);
  EXPECT_FALSE(last.done());
  node->Configure({});
  ready.RunUntilIdle();
  EXPECT_TRUE(last.Take().ok());
}

TEST_F(ThrottleTest, TellsHowManyWaitedAndHowLong) {
  ThrottledDisk& disk = AddDisk();
  Configure({.read_operations = {.per_second = 10}});
  for (int i = 0; i < 4; ++i) Start(disk, 512, i);  // one goes, the others after 0.1, 0.2, 0.3 s
  Advance(1);
  const Statistics statistics = disk.node->GetStatistics();
  ASSERT_EQ(statistics.counters.size(), 2u);
  EXPECT_EQ(statistics.counters[0].name, "requests");
  EXPECT_EQ(statistics.counters[0].value, 4u);
  EXPECT_EQ(statistics.counters[1].name, "waited");
  EXPECT_EQ(statistics.counters[1].value, 3u);
  ASSERT_EQ(statistics.histograms.size(), 1u);
  EXPECT_EQ(statistics.histograms[0].name, "wait_time_us");
  EXPECT_EQ(statistics.histograms[0].sum, 600'000u);
  uint64_t within_a_second = 0;
  for (const Statistics::Bucket& bucket : statistics.histograms[0].buckets) {
    if (bucket.bound == 1'000'000) within_a_second = bucket.count;
  }
  EXPECT_EQ(within_a_second, 2u);
}

TEST_F(ThrottleTest, ErrorsOfTheDiskPassAsTheyAre) {
  ThrottledDisk& disk = AddDisk();
  Configure({.read_operations = {.per_second = 10}});
  disk.disk.SetFault([](NodeCall, ByteRange) { return absl::DataLossError("lost"); });
  std::vector<std::byte> buffer(512);
  Task<absl::Status> first = disk.node->Read(Range(0, 512), buffer);
  Task<absl::Status> second = disk.node->Read(Range(0, 512), buffer);
  Advance(1);
  EXPECT_EQ(first.Take(), absl::DataLossError("lost"));
  EXPECT_EQ(second.Take(), absl::DataLossError("lost"));
}

}  // namespace
}  // namespace gabion::filters
