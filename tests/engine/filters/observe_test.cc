#include "engine/filters/observe.h"

#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <vector>

#include "tests/engine/filters/filter_stand.h"

namespace gabion::filters {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using test::MemoryNode;
using test::NodeCall;

// A node whose requests take a time that the test says.
class SlowNode final : public block::FilterNode {
 public:
  SlowNode(block::Node& below, test::FilterStand& stand) : FilterNode(below), stand_(stand) {}
  void set_takes(runtime::Duration takes) { takes_ = takes; }

 private:
  Task<absl::Status> DoRead(ByteRange range, MutableBytes dst) override {
    co_await stand_.clock.SleepUntil(stand_.clock.Now() + takes_);
    absl::Status status = co_await child().Read(range, dst);
    co_return status;
  }

  test::FilterStand& stand_;
  runtime::Duration takes_{0};
};

class ObserveTest : public testing::Test {
 protected:
  absl::Status Read(Filter& filter, ByteRange range, runtime::Duration takes = {}) {
    slow_.set_takes(takes);
    std::vector<std::byte> bytes(range.length.value);
    Task<absl::Status> task = filter.Read(range, bytes);
    stand_.clock.Advance(takes);
    return task.Take();
  }
  std::vector<std::string> Lines() const {
    std::vector<std::string> lines;
    for (const test::StandLogger::Line& line : stand_.logger.lines) lines.push_back(line.message);
    return lines;
  }

  test::FilterStand stand_;
  MemoryNode memory_{{.size = 1 << 20, .fast_zero = true}};
  SlowNode slow_{memory_, stand_};
};

using LogTest = ObserveTest;

TEST_F(LogTest, ALineHasEverything) {
  const auto log = NewLog(slow_, stand_.environment(), {});
  EXPECT_TRUE(Read(*log, Range(4096, 512), microseconds(35)).ok());
  EXPECT_TRUE(log->Write(Range(0, 512), test::Filled(512, 1), {}).Take().ok());
  EXPECT_TRUE(log->Write(Range(0, 512), test::Filled(512, 1), {.durable = true}).Take().ok());
  const block::ZeroOptions zero{.durable = true, .may_unmap = false, .fast_only = true};
  EXPECT_TRUE(log->Zero(Range(1, 2), zero).Take().ok());
  EXPECT_TRUE(log->Discard(Range(3, 4)).Take().ok());
  EXPECT_TRUE(log->Flush().Take().ok());
  EXPECT_TRUE(log->Cache(Range(5, 6)).Take().ok());
  EXPECT_TRUE(log->BlockStatus(Range(7, 8), 1).Take().ok());
  const std::vector<std::string> expected = {
      "exports/a, filter 'f': read 4096+512 in 35 us: OK",
      "exports/a, filter 'f': write 0+512 in 0 us: OK",
      "exports/a, filter 'f': write 0+512 durable in 0 us: OK",
      "exports/a, filter 'f': zero 1+2 durable no_hole fast_only in 0 us: OK",
      "exports/a, filter 'f': discard 3+4 in 0 us: OK",
      "exports/a, filter 'f': flush in 0 us: OK",
      "exports/a, filter 'f': cache 5+6 in 0 us: OK",
      "exports/a, filter 'f': block_status 7+8 in 0 us: OK"};
  EXPECT_EQ(Lines(), expected);
  for (const auto& line : stand_.logger.lines) EXPECT_EQ(line.level, LogLevel::kInfo);
}

TEST_F(LogTest, AFailureIsAWarningWithItsReason) {
  memory_.SetFault([](NodeCall, ByteRange) { return absl::DataLossError("bad sector"); });
  const auto log = NewLog(slow_, stand_.environment(), {});
  EXPECT_EQ(Read(*log, Range(0, 1)), absl::DataLossError("bad sector")) << "passes as it is";
  EXPECT_FALSE(log->BlockStatus(Range(0, 1), 1).Take().ok());
  const std::vector<std::string> expected = {
      "exports/a, filter 'f': read 0+1 in 0 us: DATA_LOSS: bad sector",
      "exports/a, filter 'f': block_status 0+1 in 0 us: DATA_LOSS: bad sector"};
  EXPECT_EQ(Lines(), expected);
  EXPECT_EQ(stand_.logger.lines[0].level, LogLevel::kWarning);
}

TEST_F(LogTest, OneOfSoManyIsToldAndFailedOnesAlways) {
  const auto log = NewLog(slow_, stand_.environment(), {.sample_one_in = 10});
  for (int i = 0; i < 100; ++i) EXPECT_TRUE(Read(*log, Range(0, 1)).ok());
  EXPECT_EQ(stand_.logger.lines.size(), 10u);
  memory_.SetFault([](NodeCall, ByteRange) { return absl::InternalError("no"); });
  for (int i = 0; i < 7; ++i) EXPECT_FALSE(Read(*log, Range(0, 1)).ok());
  EXPECT_EQ(stand_.logger.lines.size(), 17u);
}

TEST_F(LogTest, SlowOnesAreSampledAmongThemselves) {
  const auto log =
      NewLog(slow_, stand_.environment(), {.sample_one_in = 2, .slower_than = milliseconds(5)});
  for (int i = 0; i < 8; ++i) {
    EXPECT_TRUE(Read(*log, Range(0, 1), milliseconds(4)).ok());
    EXPECT_TRUE(Read(*log, Range(0, 1), milliseconds(5)).ok());
  }
  EXPECT_EQ(stand_.logger.lines.size(), 4u);
  EXPECT_EQ(Lines()[0], "exports/a, filter 'f': read 0+1 in 5000 us: OK");
}

TEST_F(LogTest, ConfigureChangesWhatIsTold) {
  const auto log = NewLog(slow_, stand_.environment(), {.failures_only = true});
  EXPECT_TRUE(Read(*log, Range(0, 1)).ok());
  EXPECT_TRUE(stand_.logger.lines.empty());
  log->Configure({.sample_one_in = 0});
  EXPECT_TRUE(Read(*log, Range(0, 1)).ok());
  EXPECT_EQ(stand_.logger.lines.size(), 1u);
}

using StatsTest = ObserveTest;

uint64_t Counter(const Filter& filter, const std::string& name) {
  for (const Statistics::Counter& counter : filter.GetStatistics().counters) {
    if (counter.name == name) return counter.value;
  }
  ADD_FAILURE() << "no counter " << name;
  return 0;
}
Statistics::Histogram Histogram(const Filter& filter, const std::string& name) {
  for (const Statistics::Histogram& histogram : filter.GetStatistics().histograms) {
    if (histogram.name == name) return histogram;
  }
  ADD_FAILURE() << "no histogram " << name;
  return {};
}
// The bound of the only bucket that has a value.
uint64_t OnlyBound(const Statistics::Histogram& histogram) {
  uint64_t bound = 0;
  uint64_t count = 0;
  for (const Statistics::Bucket& bucket : histogram.buckets) {
    if (bucket.count > 0) bound = bucket.bound;
    count += bucket.count;
  }
  EXPECT_EQ(count, 1u);
  return bound;
}

TEST_F(StatsTest, CountsRequestsBytesAndFailuresOfEachOperation) {
  const auto stats = NewStats(slow_, stand_.environment());
  EXPECT_TRUE(Read(*stats, Range(0, 100)).ok());
  EXPECT_TRUE(Read(*stats, Range(0, 11)).ok());
  EXPECT_TRUE(stats->Write(Range(0, 20), test::Filled(20, 1), {}).Take().ok());
  EXPECT_TRUE(stats->Zero(Range(0, 30), {}).Take().ok());
  EXPECT_TRUE(stats->Discard(Range(0, 40)).Take().ok());
  EXPECT_TRUE(stats->Flush().Take().ok());
  EXPECT_TRUE(stats->Cache(Range(0, 50)).Take().ok());
  EXPECT_TRUE(stats->BlockStatus(Range(0, 60), 1).Take().ok());
  memory_.SetFault([](NodeCall, ByteRange) { return absl::InternalError("no"); });
  EXPECT_FALSE(Read(*stats, Range(0, 1000)).ok());
  EXPECT_FALSE(stats->Flush().Take().ok());
  EXPECT_EQ(Counter(*stats, "read_requests"), 3u);
  EXPECT_EQ(Counter(*stats, "read_bytes"), 111u) << "those that came";
  EXPECT_EQ(Counter(*stats, "read_failures"), 1u);
  EXPECT_EQ(Counter(*stats, "flush_requests"), 2u);
  EXPECT_EQ(Counter(*stats, "flush_failures"), 1u);
  const std::pair<const char*, uint64_t> bytes[] = {
      {"write", 20}, {"zero", 30}, {"discard", 40}, {"cache", 50}, {"block_status", 60}};
  for (const auto& [name, count] : bytes) {
    EXPECT_EQ(Counter(*stats, std::string(name) + "_requests"), 1u) << name;
    EXPECT_EQ(Counter(*stats, std::string(name) + "_bytes"), count) << name;
    EXPECT_EQ(Counter(*stats, std::string(name) + "_failures"), 0u) << name;
  }
}

TEST_F(StatsTest, TimesFallIntoBucketsByTheirUpperBound) {
  const std::pair<runtime::Duration, uint64_t> cases[] = {
      {runtime::Duration(0), 1},
      {microseconds(1), 1},
      {runtime::Duration(1001), 2},
      {microseconds(2), 2},
      {microseconds(3), 4},
      {microseconds(4), 4},
      {microseconds(1 << 25), 1 << 25},
      {microseconds(1 << 25) + runtime::Duration(1), ~0ULL},
      {std::chrono::hours(100), ~0ULL}};
  for (const auto& [takes, bound] : cases) {
    const auto stats = NewStats(slow_, stand_.environment());
    EXPECT_TRUE(Read(*stats, Range(0, 1), takes).ok());
    EXPECT_EQ(OnlyBound(Histogram(*stats, "read_time_us")), bound) << takes.count();
  }
}

TEST_F(StatsTest, LengthsFallIntoBucketsByTheirUpperBound) {
  const std::pair<uint64_t, uint64_t> cases[] = {
      {1, 512}, {512, 512}, {513, 1024}, {4096, 4096}, {1 << 20, 1 << 20}};
  for (const auto& [length, bound] : cases) {
    const auto stats = NewStats(slow_, stand_.environment());
    EXPECT_TRUE(Read(*stats, Range(0, length)).ok());
    EXPECT_EQ(OnlyBound(Histogram(*stats, "read_length_bytes")), bound);
  }
}

TEST_F(StatsTest, HistogramsHaveTheBoundsAndSumsThatTheySay) {
  const auto stats = NewStats(slow_, stand_.environment());
  EXPECT_TRUE(Read(*stats, Range(0, 700), microseconds(10)).ok());
  EXPECT_TRUE(Read(*stats, Range(0, 300), microseconds(7)).ok());
  const Statistics::Histogram time = Histogram(*stats, "read_time_us");
  ASSERT_EQ(time.buckets.size(), 27u);
  EXPECT_EQ(time.buckets[0].bound, 1u);
  EXPECT_EQ(time.buckets[25].bound, uint64_t{1} << 25);
  EXPECT_EQ(time.buckets[26].bound, ~uint64_t{0});
  EXPECT_EQ(time.sum, 17u);
  const Statistics::Histogram length = Histogram(*stats, "read_length_bytes");
  ASSERT_EQ(length.buckets.size(), 19u);
  EXPECT_EQ(length.buckets[0].bound, 512u);
  EXPECT_EQ(length.buckets[17].bound, uint64_t{1} << 26);
  EXPECT_EQ(length.buckets[18].bound, ~uint64_t{0});
  EXPECT_EQ(length.sum, 1000u);
}

}  // namespace
}  // namespace gabion::filters
