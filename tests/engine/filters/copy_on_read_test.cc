#include "engine/filters/copy_on_read.h"

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <vector>

#include "tests/engine/filters/disk_model.h"

namespace gabion::filters {
namespace {

using block::Extent;
using block::ExtentKind;
using test::CounterOf;
using test::DiskModel;
using test::Filled;
using test::FilterBase;
using test::MemoryNode;
using test::NodeCall;
using test::RandomSource;

constexpr uint64_t kG = 4096;

class CopyOnReadTest : public testing::Test {
 protected:
  std::unique_ptr<Filter> Make(MemoryNode& child, uint32_t bottom = 0) {
    return NewCopyOnRead(child, base_.environment(), {.bottom_layer = bottom, .granularity = kG});
  }

  FilterBase base_;
  MemoryNode child_{{.size = 10 * kG + 100, .layers = 3}};
};

TEST_F(CopyOnReadTest, AReadFillsTheGranulesThatItFindsDeepDataIn) {
  child_.Fill(Range(0, 4 * kG), std::byte{5}, 2);
  const auto filter = Make(child_);
  EXPECT_EQ(base_.Read(*filter, Range(kG + 10, kG)), Filled(kG, 5));
  const block::ExtentList expected = {{.range = Range(0, kG), .layer = 2},
                                      {.range = Range(kG, 2 * kG), .layer = 1},
                                      {.range = Range(3 * kG, kG), .layer = 2}};
  EXPECT_EQ(base_.StatusOf(*filter, Range(0, 4 * kG), 10), expected);
  EXPECT_EQ(CounterOf(*filter, "bytes_filled"), 2 * kG);
  EXPECT_EQ(child_.CountCalls(NodeCall::kWrite), 1u) << "neighbours in one piece";
  EXPECT_EQ(base_.Read(*filter, Range(kG, 2 * kG)), Filled(2 * kG, 5));
  EXPECT_EQ(child_.CountCalls(NodeCall::kWrite), 1u) << "nothing is filled twice";
}

TEST_F(CopyOnReadTest, TheLastGranuleEndsWithTheDisk) {
  child_.Fill(Range(10 * kG + 99, 1), std::byte{5}, 3);
  const auto filter = Make(child_);
  EXPECT_EQ(base_.Read(*filter, Range(10 * kG + 99, 1)), Filled(1, 5));
  EXPECT_EQ(CounterOf(*filter, "bytes_filled"), 100u);
}

TEST_F(CopyOnReadTest, ZerosAndTheTopLayerAndLayersBelowTheBottomAreLeftAlone) {
  child_.Fill(Range(0, kG), std::byte{1}, 1);
  child_.SetStatus(Range(kG, kG), ExtentKind::kZero, 2);
  child_.SetStatus(Range(2 * kG, kG), ExtentKind::kZeroAllocated, 3);
  child_.Fill(Range(3 * kG, kG), std::byte{2}, 3);
  const auto filter = Make(child_, 2);
  base_.Read(*filter, Range(0, 10 * kG));
  EXPECT_EQ(child_.CountCalls(NodeCall::kWrite), 0u);
  child_.Fill(Range(5 * kG, kG), std::byte{2}, 2);
  base_.Read(*filter, Range(0, 10 * kG));
  EXPECT_EQ(CounterOf(*filter, "bytes_filled"), kG);
}

TEST_F(CopyOnReadTest, TheGranuleIsAtLeastWhatTheChildPrefers) {
  MemoryNode clusters({.size = 1 << 20, .preferred = 65536, .layers = 2});
  clusters.Fill(Range(70000, 1), std::byte{5}, 2);
  const auto filter = Make(clusters);
  base_.Read(*filter, Range(70000, 1));
  EXPECT_EQ(CounterOf(*filter, "bytes_filled"), 65536u);
}

TEST_F(CopyOnReadTest, AFillThatFailsIsCountedAndFillsPauseForTenSeconds) {
  child_.Fill(Range(0, 4 * kG), std::byte{5}, 2);
  bool is_full = true;
  child_.SetFault([&is_full](NodeCall call, ByteRange) {
    return call == NodeCall::kWrite && is_full ? absl::ResourceExhaustedError("full")
                                               : absl::OkStatus();
  });
  const auto filter = Make(child_);
  EXPECT_EQ(base_.Read(*filter, Range(0, 10)), Filled(10, 5));
  EXPECT_EQ(CounterOf(*filter, "fills_failed"), 1u);
  EXPECT_EQ(base_.logger.lines.size(), 1u);
  is_full = false;
  base_.clock.Advance(std::chrono::milliseconds(9999));
  EXPECT_EQ(base_.Read(*filter, Range(0, 10)), Filled(10, 5));
  EXPECT_EQ(CounterOf(*filter, "bytes_filled"), 0u);
  base_.clock.Advance(std::chrono::milliseconds(1));
  EXPECT_EQ(base_.Read(*filter, Range(0, 10)), Filled(10, 5));
  EXPECT_EQ(CounterOf(*filter, "bytes_filled"), kG);
  EXPECT_EQ(CounterOf(*filter, "fills_failed"), 1u);
}

TEST_F(CopyOnReadTest, AReadThatFailsBelowFails) {
  child_.Fill(Range(0, kG), std::byte{5}, 2);
  child_.SetFault([](NodeCall call, ByteRange) {
    return call == NodeCall::kRead ? absl::DataLossError("bad sector") : absl::OkStatus();
  });
  const auto filter = Make(child_);
  std::vector<std::byte> bytes(10);
  EXPECT_EQ(base_.Finish(filter->Read(Range(0, 10), bytes)).code(), absl::StatusCode::kDataLoss);
}

TEST_F(CopyOnReadTest, AnotherFilterGoesOnWithTheCountsAndThePause) {
  child_.Fill(Range(0, 4 * kG), std::byte{5}, 2);
  const auto before = Make(child_);
  base_.Read(*before, Range(0, kG));
  child_.SetFault([](NodeCall call, ByteRange) {
    return call == NodeCall::kWrite ? absl::ResourceExhaustedError("full") : absl::OkStatus();
  });
  base_.Read(*before, Range(kG, kG));
  const auto after = Make(child_);
  after->TakeOver(*before);
  base_.Read(*after, Range(2 * kG, kG));
  EXPECT_EQ(CounterOf(*after, "bytes_filled"), kG);
  EXPECT_EQ(CounterOf(*after, "fills_failed"), 1u) << "still paused";
}

TEST_F(CopyOnReadTest, NeverOverwritesWhatIsWrittenMeanwhile) {
  RandomSource random;
  for (int round = 0; round < 300; ++round) {
    FilterBase base;
    base.ready.SetChooser(&RandomSource::Choose, &random);
    MemoryNode child({.size = kG, .layers = 2});
    child.Fill(Range(0, kG), std::byte{5}, 2);
    child.SetDeferred(base.ready, random);
    const auto filter = NewCopyOnRead(child, base.environment(), {.granularity = kG});
    std::vector<std::byte> seen(16);
    const std::vector<std::byte> fresh = Filled(16, 6);
    Task<absl::Status> read = filter->Read(Range(0, 16), seen);
    Task<absl::Status> write = filter->Write(Range(100, 16), fresh, {});
    Task<absl::Status> zero = filter->Zero(Range(200, 16), {});
    base.ready.RunUntilIdle();
    ASSERT_TRUE(read.Take().ok() && write.Take().ok() && zero.Take().ok());
    ASSERT_EQ(seen, Filled(16, 5));
    ASSERT_EQ(child.content()[100], std::byte{6});
    ASSERT_EQ(child.content()[115], std::byte{6});
    ASSERT_EQ(child.content()[200], std::byte{0});
    ASSERT_EQ(CounterOf(*filter, "bytes_filled"), kG);
  }
}

TEST_F(CopyOnReadTest, ReadsInPiecesFillEverythingTheyTouch) {
  const uint64_t size = 5 * kMiB + 12345;
  MemoryNode child({.size = size, .layers = 2});
  child.Fill(Range(1000, size - 1000), std::byte{5}, 2);
  const auto filter = Make(child);
  base_.Read(*filter, Range(0, size));
  for (const Extent& extent : base_.StatusOf(*filter, Range(0, size), 100)) {
    EXPECT_EQ(extent.layer, 1u);
  }
  EXPECT_EQ(CounterOf(*filter, "bytes_filled"), size);
}

// Everything that a read touches is then in the top layer, unless it is zeros or too deep.
void ExpectFilled(FilterBase& base, Filter& filter, ByteRange range, uint32_t bottom) {
  base.Read(filter, range);
  for (const Extent& extent : base.StatusOf(filter, range, 3)) {
    ASSERT_TRUE(ReadsZero(extent.kind) || extent.layer == 1 || extent.layer > bottom)
        << extent.range.offset.value;
  }
}

TEST(CopyOnReadPropertyTest, ContentIsAsWithoutIt) {
  RandomSource random;
  for (int round = 0; round < 100; ++round) {
    FilterBase base;
    base.ready.SetChooser(&RandomSource::Choose, &random);
    const uint64_t size = random.Between(1, 60000);
    MemoryNode child({.size = size, .layers = 3});
    FillAtRandom(child, random);
    const std::vector<std::byte> content = child.content();
    child.SetDeferred(base.ready, random);
    const auto granularity = static_cast<uint32_t>(random.PowerOfTwo(512, 16384));
    const auto bottom = static_cast<uint32_t>(random.Below(4));
    const auto filter = NewCopyOnRead(child, base.environment(),
                                      {.bottom_layer = bottom, .granularity = granularity});
    const bool may_fail = random.OneIn(3);
    DiskModel model(base, random, *filter, content,
                    {.window = uint64_t{3} * granularity, .may_fail = may_fail});
    if (may_fail) {
      child.SetFault([&random](NodeCall, ByteRange) {
        return random.OneIn(10) ? absl::InternalError("by chance") : absl::OkStatus();
      });
    }
    for (int wave = 0; wave < 15; ++wave) {
      ASSERT_NO_FATAL_FAILURE(model.RunWave());
      if (random.OneIn(3)) base.clock.Advance(std::chrono::seconds(6));
    }
    child.SetFault(nullptr);
    base.clock.Advance(std::chrono::seconds(11));
    ASSERT_NO_FATAL_FAILURE(model.Settle());
    ASSERT_EQ(child.content(), model.content());
    const ByteRange range = random.RangeWithin(size);
    ASSERT_NO_FATAL_FAILURE(ExpectFilled(base, *filter, range, bottom == 0 ? 9 : bottom));
    ASSERT_EQ(child.content(), model.content());
  }
}

}  // namespace
}  // namespace gabion::filters
