// The law of transparency: who stands above a filter that changes no data cannot tell that it is
// there, however many of them there are and in whatever order.
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <vector>

#include "engine/filters/feature_mask.h"
#include "engine/filters/observe.h"
#include "engine/filters/protect.h"
#include "engine/filters/readahead.h"
#include "engine/filters/resize.h"
#include "engine/filters/retry.h"
#include "engine/filters/slice.h"
#include "tests/engine/filters/filter_stand.h"

namespace gabion::filters {
namespace {

using block::ExtentList;
using test::MemoryNode;
using test::RandomSource;
using test::WholeOf;

using Factory = std::unique_ptr<Filter> (*)(block::Node& child, Environment environment);

// Those that say that they have no effect, and the others with parameters that have none.
constexpr Factory kFactories[] = {
    [](block::Node& child, Environment environment) -> std::unique_ptr<Filter> {
      return NewLog(child, std::move(environment), {.sample_one_in = 3});
    },
    [](block::Node& child, Environment environment) {
      return NewStats(child, std::move(environment));
    },
    [](block::Node& child, Environment environment) -> std::unique_ptr<Filter> {
      const uint64_t behind = child.limits().size.value;
      return NewWriteProtect(child, std::move(environment), {.ranges = {Range(behind, 1000)}});
    },
    [](block::Node& child, Environment environment) {
      return NewFeatureMask(child, std::move(environment), {});
    },
    [](block::Node& child, Environment environment) -> std::unique_ptr<Filter> {
      return NewReadahead(child, std::move(environment), {.max_window = 4096});
    },
    [](block::Node& child, Environment environment) -> std::unique_ptr<Filter> {
      return NewRetry(child, std::move(environment), {});
    },
    [](block::Node& child, Environment environment) {
      return NewSlice(child, std::move(environment), Range(0, 0), true);
    },
    [](block::Node& child, Environment environment) {
      const ResizeOptions options{ResizeOptions::Mode::kRoundUp, 1};
      return NewResize(child, std::move(environment), options);
    },
};

// A disk, and the filters on it; closed at the end.
class Stack {
 public:
  Stack(uint64_t size, uint64_t alignment, uint64_t seed)
      : memory_({.size = size, .alignment = alignment}) {
    RandomSource random(seed);
    test::FillAtRandom(memory_, random);
    rich_ = std::make_unique<test::RichNode>(memory_);
  }

  void Add(test::FilterStand& stand, Factory factory) {
    filters_.push_back(factory(top(), stand.environment()));
  }
  void Close(test::FilterStand& stand) {
    for (auto filter = filters_.rbegin(); filter != filters_.rend(); ++filter) {
      EXPECT_TRUE(stand.Finish((*filter)->Close()).ok());
    }
  }
  block::Node& top() {
    if (filters_.empty()) return *rich_;
    return *filters_.back();
  }
  MemoryNode& memory() { return memory_; }
  block::Node& disk() { return *rich_; }

 private:
  MemoryNode memory_;
  std::unique_ptr<block::Node> rich_;
  std::vector<std::unique_ptr<Filter>> filters_;
};

// One random request, the same to both; what they answer is the same.
void AskBoth(test::FilterStand& stand, block::Node& a, block::Node& b, RandomSource& random) {
  const block::Limits& limits = a.limits();
  const ByteRange range =
      AlignOutward(random.RangeWithin(limits.size.value), limits.alignment, limits.size);
  const block::ZeroOptions zero{.may_unmap = random.OneIn(2), .fast_only = random.OneIn(4)};
  std::vector<std::byte> bytes(range.length.value);
  switch (random.Below(6)) {
    case 0: {
      std::vector<std::byte> other(range.length.value);
      ASSERT_EQ(stand.Finish(a.Read(range, bytes)), stand.Finish(b.Read(range, other)));
      ASSERT_EQ(bytes, other);
      return;
    }
    case 1:
      random.FillNonZero(bytes);
      ASSERT_EQ(stand.Finish(a.Write(range, bytes, {})), stand.Finish(b.Write(range, bytes, {})));
      return;
    case 2:
      ASSERT_EQ(stand.Finish(a.Zero(range, zero)), stand.Finish(b.Zero(range, zero)));
      return;
    case 3:
      ASSERT_EQ(stand.Finish(a.Discard(range)), stand.Finish(b.Discard(range)));
      return;
    case 4:
      ASSERT_EQ(stand.Finish(a.Flush()), stand.Finish(b.Flush()));
      return;
    default: {
      const ByteRange any = random.RangeWithin(limits.size.value);
      const std::size_t most = random.Between(1, 8);
      const absl::StatusOr<ExtentList> of_a = stand.Finish(a.BlockStatus(any, most));
      const absl::StatusOr<ExtentList> of_b = stand.Finish(b.BlockStatus(any, most));
      ASSERT_EQ(*of_a, *of_b);
      return;
    }
  }
}

TEST(TransparencyTest, NobodyCanTellThatTheFiltersAreThere) {
  RandomSource random;
  for (int round = 0; round < 300; ++round) {
    test::FilterStand stand;
    const uint64_t size = random.Between(1, 12000);
    const uint64_t alignment = random.PowerOfTwo(1, 512);
    const uint64_t seed = random.Next();
    Stack with(size, alignment, seed);
    Stack without(size, alignment, seed);
    for (uint64_t n = random.Between(1, 10); n > 0; --n) with.Add(stand, random.Pick(kFactories));
    if (random.OneIn(2)) with.memory().SetDeferred(stand.ready, random);
    test::ExpectSameLimits(with.top().limits(), without.top().limits());
    for (int i = 0; i < 30; ++i) {
      ASSERT_NO_FATAL_FAILURE(AskBoth(stand, with.top(), without.top(), random));
    }
    ASSERT_EQ(with.memory().content(), without.memory().content());
    ASSERT_EQ(MapOf(stand, with.top(), WholeOf(with.top()), 7),
              MapOf(stand, without.top(), WholeOf(without.top()), 7));
    with.Close(stand);
  }
}

TEST(TransparencyTest, EachFilterAloneAndTwice) {
  RandomSource random;
  for (const Factory factory : kFactories) {
    for (int copies = 1; copies <= 2; ++copies) {
      test::FilterStand stand;
      const uint64_t seed = random.Next();
      Stack with(5000, 512, seed);
      Stack without(5000, 512, seed);
      for (int i = 0; i < copies; ++i) with.Add(stand, factory);
      test::ExpectSameLimits(with.top().limits(), without.top().limits());
      ASSERT_EQ(MapOf(stand, with.top(), WholeOf(with.top()), 3),
                MapOf(stand, without.top(), WholeOf(without.top()), 3));
      for (int i = 0; i < 200; ++i) {
        ASSERT_NO_FATAL_FAILURE(AskBoth(stand, with.top(), without.top(), random));
      }
      with.Close(stand);
    }
  }
}

TEST(TransparencyTest, ErrorsOfTheDiskPassAsTheyAre) {
  RandomSource random;
  for (const Factory factory : kFactories) {
    test::FilterStand stand;
    Stack stack(4096, 1, 1);
    stack.Add(stand, factory);
    const absl::Status error = absl::DataLossError("bad sector");
    stack.memory().SetFault([&error](test::NodeCall, ByteRange) { return error; });
    std::vector<std::byte> bytes(512, std::byte{1});
    EXPECT_EQ(stand.Finish(stack.top().Read(Range(0, 512), bytes)), error);
    EXPECT_EQ(stand.Finish(stack.top().Write(Range(0, 512), bytes, {})), error);
    EXPECT_EQ(stand.Finish(stack.top().Zero(Range(0, 512), {})), error);
    EXPECT_EQ(stand.Finish(stack.top().Discard(Range(0, 512))), error);
    EXPECT_EQ(stand.Finish(stack.top().Flush()), error);
    EXPECT_EQ(stand.Finish(stack.top().Cache(Range(0, 512))), error);
    EXPECT_EQ(stand.Finish(stack.top().BlockStatus(Range(0, 512), 1)).status(), error);
  }
}

TEST(TransparencyTest, ADiskThatGrewFromOutsideIsSeenByAll) {
  test::FilterStand stand;
  MemoryNode memory({.size = 4096});
  for (const Factory factory : kFactories) {
    const auto filter = factory(memory, stand.environment());
    const ByteCount size = memory.limits().size + ByteCount{512};
    EXPECT_TRUE(stand.Finish(memory.Resize(size)).ok());
    filter->Refresh();
    EXPECT_EQ(filter->limits().size, size);
    std::vector<std::byte> bytes(1);
    const ByteRange last{ByteOffset{size.value - 1}, ByteCount{1}};
    EXPECT_TRUE(stand.Finish(filter->Read(last, bytes)).ok());
  }
}

}  // namespace
}  // namespace gabion::filters
