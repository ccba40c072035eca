#include "engine/filters/cow.h"

#include <gtest/gtest.h>

#include <memory>
#include <utility>
#include <vector>

#include "engine/block/sparse_memory.h"
#include "tests/engine/filters/disk_model.h"

namespace gabion::filters {
namespace {

using block::ExtentKind;
using block::ExtentList;
using block::SparseMemory;
using test::CounterOf;
using test::DiskModel;
using test::Filled;
using test::FilterBase;
using test::MemoryNode;
using test::NodeCall;
using test::RandomSource;

constexpr uint64_t kB = 4096;
constexpr uint64_t kSize = 10 * kB + 100;

class CowTest : public testing::Test {
 protected:
  explicit CowTest() {
    child_.Fill(Range(0, kSize), std::byte{1}, 2);
    cow_ = Make();
  }

  std::unique_ptr<Filter> Make() {
    return NewCow(child_, base_.environment(), "cow", scratch_, *state_);
  }

  const CowOptions options_{.block_size = uint32_t{kB}};
  FilterBase base_;
  MemoryNode child_{{.size = kSize, .layers = 3, .writable = false}};
  SparseMemory scratch_{{.size = ByteCount{kSize}, .limit = ByteCount{kMiB}, .chunk_bytes = kB}};
  std::unique_ptr<CowState> state_ = std::make_unique<CowState>(options_.block_size, false);
  std::unique_ptr<Filter> cow_;
};

TEST_F(CowTest, NothingButReadsAndStatusReachesTheChild) {
  EXPECT_TRUE(base_.Write(*cow_, Range(10, 2 * kB), 7, true).ok());
  EXPECT_TRUE(base_.Finish(cow_->Zero(Range(5, 3 * kB), {.durable = true})).ok());
  EXPECT_TRUE(base_.Finish(cow_->Discard(Range(0, kSize))).ok());
  EXPECT_TRUE(base_.Finish(cow_->Flush()).ok());
  EXPECT_TRUE(base_.Finish(cow_->Close()).ok());
  EXPECT_EQ(child_.calls().size(), child_.CountCalls(NodeCall::kRead));
  EXPECT_EQ(child_.content(), Filled(kSize, 1));
}

TEST_F(CowTest, IsWritableAboveADiskThatIsNot) {
  EXPECT_TRUE(cow_->limits().writable);
  EXPECT_TRUE(cow_->limits().fast_zero);
  EXPECT_EQ(cow_->limits().layers, 3u);
  EXPECT_EQ(cow_->limits().preferred, ByteCount{kB});
  EXPECT_EQ(cow_->limits().preferred_from, "cow");
  EXPECT_EQ(base_.Finish(cow_->Resize(ByteCount{5})).code(), absl::StatusCode::kUnimplemented);
}

TEST_F(CowTest, ABlockThatIsWrittenInPartIsCompleted) {
  EXPECT_TRUE(base_.Write(*cow_, Range(kB + 10, 5), 7).ok());
  EXPECT_TRUE(base_.Write(*cow_, Range(10 * kB + 50, 1), 8).ok());
  std::vector<std::byte> expected = Filled(kSize, 1);
  std::fill_n(expected.begin() + kB + 10, 5, std::byte{7});
  expected[10 * kB + 50] = std::byte{8};
  EXPECT_EQ(base_.Read(*cow_, Range(0, kSize)), expected);
  EXPECT_EQ(scratch_.used(), ByteCount{2 * kB});
  EXPECT_EQ(CounterOf(*cow_, "bytes_written"), 6u);
  EXPECT_EQ(CounterOf(*cow_, "blocks"), 2u);
}

TEST_F(CowTest, StatusSaysWhatIsKeptHereAndElseWhatTheChildSays) {
  EXPECT_TRUE(base_.Write(*cow_, Range(kB + 10, 5), 7).ok());
  EXPECT_TRUE(base_.Finish(cow_->Zero(Range(3 * kB, 2 * kB), {})).ok());
  const ExtentList expected = {
      {.range = Range(5, kB - 5), .layer = 2},
      {.range = Range(kB, kB), .layer = 1, .apart = true},
      {.range = Range(2 * kB, kB), .layer = 2},
      {.range = Range(3 * kB, 2 * kB), .kind = ExtentKind::kZero, .layer = 1, .apart = true},
      {.range = Range(5 * kB, kSize - 5 * kB), .layer = 2}};
  EXPECT_EQ(*base_.Finish(cow_->BlockStatus(Range(5, kSize - 5), 100)), expected);
  EXPECT_EQ(base_.Finish(cow_->BlockStatus(Range(5, kSize - 5), 3))->size(), 3u);
}

TEST_F(CowTest, ZerosAndDiscardsOfWholeBlocksGiveSpaceBack) {
  EXPECT_TRUE(base_.Write(*cow_, Range(0, 6 * kB), 7).ok());
  EXPECT_TRUE(base_.Finish(cow_->Zero(Range(kB / 2, 2 * kB), {.fast_only = false})).ok());
  EXPECT_TRUE(base_.Finish(cow_->Discard(Range(3 * kB, 2 * kB + 10))).ok());
  EXPECT_EQ(scratch_.used(), ByteCount{3 * kB});
  EXPECT_EQ(base_.Read(*cow_, Range(kB / 2, 2 * kB)), Filled(2 * kB, 0));
  EXPECT_EQ(base_.Read(*cow_, Range(3 * kB, 2 * kB)), Filled(2 * kB, 0));
  EXPECT_EQ(base_.Read(*cow_, Range(5 * kB, kB)), Filled(kB, 7)) << "a part of a block stays";
}

TEST_F(CowTest, ZerosThatAreToKeepTheirSpaceTakeIt) {
  EXPECT_TRUE(base_.Finish(cow_->Zero(Range(kB, 2 * kB), {.may_unmap = false})).ok());
  EXPECT_EQ(scratch_.used(), ByteCount{2 * kB});
  EXPECT_EQ(base_.Read(*cow_, Range(kB, 2 * kB)), Filled(2 * kB, 0));
}

TEST_F(CowTest, FastZeroOfPartOfABlockIsRefusedUntouched) {
  const absl::Status status = base_.Finish(cow_->Zero(Range(10, 2 * kB), {.fast_only = true}));
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(base_.Read(*cow_, Range(0, kSize)), Filled(kSize, 1));
  EXPECT_TRUE(base_.Finish(cow_->Zero(Range(0, 2 * kB), {.fast_only = true})).ok());
  EXPECT_TRUE(base_.Finish(cow_->Zero(Range(10, kB), {.fast_only = true})).ok());
}

TEST_F(CowTest, ABlockOfWhichNothingIsLeftTakesNoSpace) {
  child_.SetStatus(Range(0, kB), ExtentKind::kZero, 1);
  child_.Fill(Range(10, 10), std::byte{1});
  EXPECT_TRUE(base_.Finish(cow_->Zero(Range(5, 20), {})).ok());
  EXPECT_EQ(scratch_.used(), ByteCount{0});
  EXPECT_EQ(base_.Read(*cow_, Range(0, kB)), Filled(kB, 0));
}

TEST_F(CowTest, AFullScratchNodeFailsTheWriteAndWhatWasThereStays) {
  SparseMemory small({.size = ByteCount{kSize}, .limit = ByteCount{kB}, .chunk_bytes = kB});
  const std::unique_ptr<CowState> state = std::make_unique<CowState>(options_.block_size, false);
  const auto cow = NewCow(child_, base_.environment(), "cow", small, *state);
  EXPECT_TRUE(base_.Write(*cow, Range(0, 10), 7).ok());
  const absl::Status status = base_.Write(*cow, Range(kB, 10), 8);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(base_.Read(*cow, Range(kB, kB)), Filled(kB, 1));
  EXPECT_TRUE(base_.Write(*cow, Range(100, 10), 9).ok()) << "a block that is there already";
}

TEST_F(CowTest, AnotherFilterWithTheSameStateShowsTheSameDisk) {
  EXPECT_TRUE(base_.Write(*cow_, Range(kB + 10, 5), 7).ok());
  const std::vector<std::byte> before = base_.Read(*cow_, Range(0, kSize));
  const std::unique_ptr<Filter> next = Make();
  next->TakeOver(*cow_);
  cow_.reset();
  EXPECT_EQ(base_.Read(*next, Range(0, kSize)), before);
  EXPECT_EQ(CounterOf(*next, "bytes_written"), 5u);
}

TEST_F(CowTest, GrowsWhenScratchAndChildHaveGrown) {
  EXPECT_TRUE(base_.Write(*cow_, Range(10 * kB + 99, 1), 7).ok());
  EXPECT_TRUE(base_.Finish(child_.Resize(ByteCount{12 * kB})).ok());
  cow_->Refresh();
  EXPECT_EQ(cow_->limits().size, ByteCount{kSize}) << "the scratch node is shorter";
  EXPECT_TRUE(base_.Finish(scratch_.Resize(ByteCount{12 * kB})).ok());
  cow_->Refresh();
  EXPECT_EQ(cow_->limits().size, ByteCount{12 * kB});
  std::vector<std::byte> expected = Filled(2 * kB, 0);
  std::fill_n(expected.begin(), 99, std::byte{1});
  expected[99] = std::byte{7};
  EXPECT_EQ(base_.Read(*cow_, Range(10 * kB, 2 * kB)), expected);
}

TEST_F(CowTest, DoesItselfWhatTheChildHides) {
  class Masked final : public block::FilterNode {
   public:
    explicit Masked(block::Node& below) : FilterNode(below) { mutable_limits().hidden = 0x7f; }
  };
  Masked masked(child_);
  const auto cow = NewCow(masked, base_.environment(), "cow", scratch_, *state_);
  for (const auto feature :
       {block::Feature::kTrim, block::Feature::kZero, block::Feature::kFastZero}) {
    EXPECT_FALSE(cow->limits().hidden & Bit(feature));
  }
  EXPECT_TRUE(cow->limits().hidden & Bit(block::Feature::kHoles));
}

TEST(CowPropertyTest, IsADiskOfItsOwn) {
  RandomSource random;
  for (int round = 0; round < 120; ++round) {
    FilterBase base;
    base.ready.SetChooser(&RandomSource::Choose, &random);
    const CowOptions options{.block_size = static_cast<uint32_t>(random.PowerOfTwo(512, 16384))};
    const uint64_t size = random.Between(1, 60000);
    MemoryNode child({.size = size, .layers = 3, .writable = false});
    FillAtRandom(child, random);
    const std::vector<std::byte> original = child.content();
    MemoryNode scratch(
        {.size = size, .fast_zero = random.OneIn(2), .discard_zeroes = random.OneIn(2)});
    child.SetDeferred(base.ready, random);
    scratch.SetDeferred(base.ready, random);
    const std::unique_ptr<CowState> state = std::make_unique<CowState>(options.block_size, false);
    std::unique_ptr<Filter> cow = NewCow(child, base.environment(), "cow", scratch, *state);
    const bool may_fail = random.OneIn(3);
    DiskModel model(base, random, *cow, original,
                    {.window = uint64_t{3} * options.block_size, .may_fail = may_fail});
    if (may_fail) {
      const auto fault = [&random](NodeCall, ByteRange) {
        return random.OneIn(10) ? absl::ResourceExhaustedError("by chance") : absl::OkStatus();
      };
      child.SetFault(fault);
      scratch.SetFault(fault);
    }
    for (int wave = 0; wave < 15; ++wave) {
      ASSERT_NO_FATAL_FAILURE(model.RunWave());
      if (!random.OneIn(5)) continue;
      auto next = NewCow(child, base.environment(), "cow", scratch, *state);
      next->TakeOver(*cow);
      cow = std::move(next);
      model.SetNode(*cow);
    }
    child.SetFault(nullptr);
    scratch.SetFault(nullptr);
    ASSERT_NO_FATAL_FAILURE(model.Settle());
    ASSERT_NO_FATAL_FAILURE(model.CheckStatus());
    ASSERT_NO_FATAL_FAILURE(model.CheckLayers(child));
    ASSERT_EQ(child.content(), original);
  }
}

}  // namespace
}  // namespace gabion::filters
