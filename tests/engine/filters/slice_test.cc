#include "engine/filters/slice.h"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "tests/engine/filters/filter_stand.h"

namespace gabion::filters {
namespace {

using block::ExtentList;
using test::MemoryNode;
using test::NodeCall;
using test::WholeOf;

TEST(SliceTest, SizeIsItsOwnAndAllElseTheChilds) {
  test::FilterStand stand;
  MemoryNode memory({.size = 100000, .alignment = 512});
  test::RichNode child(memory);
  const auto slice = NewSlice(child, stand.environment(), Range(1024, 2048), false);
  EXPECT_EQ(slice->limits().size, ByteCount{2048});
  test::ExpectSameLimits(slice->limits(), child.limits(), {"size"});
}

TEST(SliceTest, EveryRequestIsMovedByTheBeginning) {
  test::FilterStand stand;
  MemoryNode child({.size = 1000});
  const auto slice = NewSlice(child, stand.environment(), Range(300, 200), false);
  EXPECT_TRUE(slice->Write(Range(0, 200), test::Filled(200, 5), {.durable = true}).Take().ok());
  EXPECT_EQ(child.content()[299], std::byte{0});
  EXPECT_EQ(child.content()[300], std::byte{5});
  EXPECT_EQ(child.content()[499], std::byte{5});
  EXPECT_EQ(child.content()[500], std::byte{0});
  EXPECT_TRUE(slice->Zero(Range(10, 20), {.durable = true}).Take().ok());
  EXPECT_TRUE(slice->Discard(Range(40, 20)).Take().ok());
  EXPECT_TRUE(slice->Cache(Range(0, 200)).Take().ok());
  EXPECT_TRUE(slice->Flush().Take().ok());
  std::vector<std::byte> bytes(30);
  EXPECT_TRUE(slice->Read(Range(30, 30), bytes).Take().ok());
  const ByteRange expected[] = {Range(300, 200), Range(310, 20), Range(340, 20),
                                Range(300, 200), Range(0, 0),    Range(330, 30)};
  ASSERT_EQ(child.calls().size(), 6u);
  for (std::size_t i = 0; i < 6; ++i) EXPECT_EQ(child.calls()[i].range, expected[i]) << i;
  EXPECT_TRUE(child.calls()[0].durable && child.calls()[1].durable);
}

TEST(SliceTest, AFixedSliceHasOneSize) {
  test::FilterStand stand;
  MemoryNode child({.size = 1000});
  const auto slice = NewSlice(child, stand.environment(), Range(300, 700), false);
  EXPECT_EQ(slice->Resize(ByteCount{800}).Take().code(), absl::StatusCode::kUnimplemented);
  EXPECT_TRUE(child.Resize(ByteCount{2000}).Take().ok());
  slice->Refresh();
  EXPECT_EQ(slice->limits().size, ByteCount{700});
}

TEST(SliceTest, ASliceToTheEndGrowsWithTheChildAndGrowsIt) {
  test::FilterStand stand;
  MemoryNode child({.size = 1000});
  const auto slice = NewSlice(child, stand.environment(), Range(300, 0), true);
  EXPECT_EQ(slice->limits().size, ByteCount{700});
  EXPECT_TRUE(slice->Resize(ByteCount{900}).Take().ok());
  EXPECT_EQ(child.limits().size, ByteCount{1200});
  EXPECT_EQ(slice->limits().size, ByteCount{900});
  EXPECT_TRUE(child.Resize(ByteCount{1500}).Take().ok());
  slice->Refresh();
  EXPECT_EQ(slice->limits().size, ByteCount{1200});
  const absl::Status status = slice->Resize(ByteCount{std::numeric_limits<uint64_t>::max()}).Take();
  EXPECT_EQ(status.code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(child.limits().size, ByteCount{1500});
}

TEST(SliceTest, AFailedResizeShowsTheSizeThatIs) {
  test::FilterStand stand;
  MemoryNode child({.size = 1000, .resizable = false});
  const auto slice = NewSlice(child, stand.environment(), Range(300, 0), true);
  EXPECT_EQ(slice->Resize(ByteCount{900}).Take().code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(slice->limits().size, ByteCount{700});
}

TEST(SliceTest, AnEmptySliceAtTheEndIsADisk) {
  test::FilterStand stand;
  MemoryNode child({.size = 1000});
  const auto slice = NewSlice(child, stand.environment(), Range(1000, 0), true);
  EXPECT_EQ(slice->limits().size, ByteCount{0});
  EXPECT_TRUE(slice->Flush().Take().ok());
}

TEST(SliceTest, FitsWhereItBeginsAndEndsAtUnits) {
  block::Limits child;
  child.size = ByteCount{5000};
  child.alignment = ByteCount{512};
  EXPECT_TRUE(SliceFits(Range(512, 1024), false, child));
  EXPECT_TRUE(SliceFits(Range(512, 7), true, child));
  EXPECT_FALSE(SliceFits(Range(100, 512), false, child));
  EXPECT_FALSE(SliceFits(Range(100, 0), true, child));
  EXPECT_FALSE(SliceFits(Range(512, 100), false, child));
  EXPECT_FALSE(SliceFits(Range(4608, 392), false, child)) << "the child may grow";
  child.alignment = ByteCount{1};
  EXPECT_TRUE(SliceFits(Range(1, 1), false, child));
}

TEST(SliceTest, ReachesTheOddEndOfItsChild) {
  test::FilterStand stand;
  MemoryNode child({.size = 5000, .alignment = 512});
  child.Fill(Range(0, 5000), std::byte{4});
  const auto slice = NewSlice(child, stand.environment(), Range(4096, 0), true);
  std::vector<std::byte> bytes(904);
  EXPECT_TRUE(slice->Read(Range(0, 904), bytes).Take().ok());
  EXPECT_EQ(bytes, test::Filled(904, 4));
}

TEST(SliceDeathTest, ARangeThatTheChildHasNotIsOurBug) {
  test::FilterStand stand;
  MemoryNode child({.size = 1000});
  EXPECT_DEATH(NewSlice(child, stand.environment(), Range(300, 701), false), "FitsWithin");
  MemoryNode coarse({.size = 1024, .alignment = 512});
  EXPECT_DEATH(NewSlice(coarse, stand.environment(), Range(100, 512), false), "IsAlignedWithin");
}

TEST(SliceTest, ErrorsOfStatusPass) {
  test::FilterStand stand;
  MemoryNode child({.size = 1000});
  child.SetFault([](NodeCall, ByteRange) { return absl::DataLossError("bad"); });
  const auto slice = NewSlice(child, stand.environment(), Range(300, 100), false);
  EXPECT_EQ(slice->BlockStatus(Range(0, 100), 1).Take().status(), absl::DataLossError("bad"));
}

// Status is the child's, cut and shifted; content is the child's.
TEST(SlicePropertyTest, IsTheExactImageOfItsRange) {
  test::RandomSource random;
  for (int round = 0; round < 300; ++round) {
    test::FilterStand stand;
    MemoryNode memory({.size = random.Between(1, 20000)});
    test::FillAtRandom(memory, random);
    test::RichNode child(memory);
    if (random.OneIn(2)) memory.SetDeferred(stand.ready, random);
    const ByteRange range = random.RangeWithin(memory.limits().size.value);
    const bool to_end = range.end().value == memory.limits().size.value && random.OneIn(2);
    const auto slice = NewSlice(child, stand.environment(), range, to_end);

    const ExtentList below = MapOf(stand, child, WholeOf(child), 1000);
    const ExtentList expected =
        block::Shift(block::Clip(below, range), range.offset, ByteOffset{0});
    const ExtentList map = MapOf(stand, *slice, WholeOf(*slice), random.Between(1, 9));
    ASSERT_EQ(map, expected);

    std::vector<std::byte> bytes(range.length.value);
    ASSERT_TRUE(stand.Finish(slice->Read(WholeOf(*slice), bytes)).ok());
    ASSERT_TRUE(test::HasAt(memory.content(), range.offset.value, bytes));
  }
}

TEST(SlicePropertyTest, ASliceOfASliceIsASlice) {
  test::RandomSource random;
  for (int round = 0; round < 100; ++round) {
    test::FilterStand stand;
    MemoryNode memory({.size = random.Between(100, 9000)});
    test::FillAtRandom(memory, random);
    test::RichNode child(memory);
    const ByteRange outer = random.RangeWithin(memory.limits().size.value);
    const ByteRange inner = random.RangeWithin(outer.length.value);
    const ByteRange both{outer.offset + ByteCount{inner.offset.value}, inner.length};
    const auto lower = NewSlice(child, stand.environment(), outer, false);
    const auto upper = NewSlice(*lower, stand.environment(), inner, false);
    const auto direct = NewSlice(child, stand.environment(), both, false);
    ASSERT_EQ(MapOf(stand, *upper, WholeOf(*upper), 3), MapOf(stand, *direct, WholeOf(*direct), 3));
  }
}

}  // namespace
}  // namespace gabion::filters
