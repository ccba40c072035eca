#include "engine/filters/resize.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/engine/filters/filter_stand.h"

namespace gabion::filters {
namespace {

using block::Extent;
using block::ExtentKind;
using block::ExtentList;
using test::MemoryNode;
using test::NodeCall;
using test::WholeOf;
using Mode = ResizeOptions::Mode;

TEST(ResizedSizeTest, TheThreeModes) {
  EXPECT_EQ(ResizedSize({Mode::kSize, 700}, ByteCount{1000}), ByteCount{700});
  EXPECT_EQ(ResizedSize({Mode::kRoundUp, 512}, ByteCount{1000}), ByteCount{1024});
  EXPECT_EQ(ResizedSize({Mode::kRoundUp, 512}, ByteCount{1024}), ByteCount{1024});
  EXPECT_EQ(ResizedSize({Mode::kRoundUp, 1 << 30}, ByteCount{1}), ByteCount{1 << 30});
  EXPECT_EQ(ResizedSize({Mode::kRoundDown, 512}, ByteCount{1000}), ByteCount{512});
  EXPECT_EQ(ResizedSize({Mode::kRoundDown, 4096}, ByteCount{1000}), ByteCount{0});
}

TEST(ResizeTest, SizeIsItsOwnAndAllElseTheChilds) {
  test::FilterStand stand;
  MemoryNode memory({.size = 1000});
  test::RichNode child(memory);
  const auto filter = NewResize(child, stand.environment(), {Mode::kRoundUp, 4096});
  EXPECT_EQ(filter->limits().size, ByteCount{4096});
  EXPECT_EQ(filter->limits().padding, ByteCount{0}) << "clients see what is added";
  test::ExpectSameLimits(filter->limits(), child.limits(), {"size"});
}

TEST(ResizeTest, WhatIsAddedTakesOnlyZeros) {
  test::FilterStand stand;
  MemoryNode child({.size = 1000});
  const auto filter = NewResize(child, stand.environment(), {Mode::kSize, 2000});
  const ByteRange beyond[] = {Range(1000, 1000), Range(999, 2), Range(1999, 1)};
  for (const ByteRange& range : beyond) {
    const absl::Status status =
        filter->Write(range, test::Filled(range.length.value, 1), {}).Take();
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  }
  EXPECT_TRUE(child.calls().empty()) << "nothing is written";
  std::vector<std::byte> bytes = test::Filled(100, 1);
  bytes.resize(200);
  EXPECT_TRUE(filter->Write(Range(900, 200), bytes, {.durable = true}).Take().ok());
  ASSERT_EQ(child.calls().size(), 1u);
  EXPECT_EQ(child.calls()[0].range, Range(900, 100));
  EXPECT_TRUE(child.calls()[0].durable);
}

TEST(ResizeTest, TheErrorNamesTheEntry) {
  test::FilterStand stand;
  MemoryNode child({.size = 1000});
  const auto filter = NewResize(child, stand.environment(), {Mode::kSize, 2000});
  EXPECT_EQ(filter->Write(Range(1500, 1), test::Filled(1, 1), {}).Take().message(),
            "exports/a, filter 'f': write of 1 bytes at 1500 has data behind the end of the disk "
            "below at 1000");
}

TEST(ResizeTest, ChangesOfAddedBytesAloneAreDroppedOrFlush) {
  test::FilterStand stand;
  MemoryNode child({.size = 1000});
  const auto filter = NewResize(child, stand.environment(), {Mode::kSize, 2000});
  const std::vector<std::byte> zeros(10);
  EXPECT_TRUE(filter->Write(Range(1000, 10), zeros, {}).Take().ok());
  EXPECT_TRUE(filter->Zero(Range(1000, 10), {.fast_only = true}).Take().ok());
  EXPECT_TRUE(filter->Discard(Range(1000, 10)).Take().ok());
  EXPECT_TRUE(filter->Cache(Range(1000, 10)).Take().ok());
  EXPECT_TRUE(child.calls().empty());
  EXPECT_TRUE(filter->Write(Range(1000, 10), zeros, {.durable = true}).Take().ok());
  EXPECT_TRUE(filter->Zero(Range(1000, 10), {.durable = true}).Take().ok());
  EXPECT_EQ(child.CountCalls(NodeCall::kFlush), 2u);
}

TEST(ResizeTest, ZeroDiscardAndCacheAreCutAtTheChildsEnd) {
  test::FilterStand stand;
  MemoryNode child({.size = 1000});
  const auto filter = NewResize(child, stand.environment(), {Mode::kSize, 2000});
  EXPECT_TRUE(filter->Zero(Range(500, 1500), {}).Take().ok());
  EXPECT_TRUE(filter->Discard(Range(500, 1500)).Take().ok());
  EXPECT_TRUE(filter->Cache(Range(500, 1500)).Take().ok());
  ASSERT_EQ(child.calls().size(), 3u);
  for (const test::CallRecord& record : child.calls()) EXPECT_EQ(record.range, Range(500, 500));
}

TEST(ResizeTest, WhatIsCutOffIsNotThere) {
  test::FilterStand stand;
  MemoryNode child({.size = 1000});
  child.Fill(Range(0, 1000), std::byte{3});
  const auto filter = NewResize(child, stand.environment(), {Mode::kSize, 600});
  EXPECT_TRUE(filter->Write(Range(0, 600), test::Filled(600, 4), {}).Take().ok());
  EXPECT_EQ(child.content()[599], std::byte{4});
  EXPECT_EQ(child.content()[600], std::byte{3});
}

TEST(ResizeTest, RoundingFollowsTheChildAndASizeDoesNot) {
  test::FilterStand stand;
  MemoryNode child({.size = 1000});
  const auto up = NewResize(child, stand.environment(), {Mode::kRoundUp, 512});
  const auto down = NewResize(child, stand.environment(), {Mode::kRoundDown, 512});
  const auto fixed = NewResize(child, stand.environment(), {Mode::kSize, 1500});
  EXPECT_EQ(up->Resize(ByteCount{3000}).Take().code(), absl::StatusCode::kUnimplemented);
  EXPECT_TRUE(child.Resize(ByteCount{2000}).Take().ok());
  child.Fill(Range(0, 2000), std::byte{9});
  Filter* const filters[] = {up.get(), down.get(), fixed.get()};
  const uint64_t sizes[] = {2048, 1536, 1500};
  for (int i = 0; i < 3; ++i) {
    filters[i]->Refresh();
    EXPECT_EQ(filters[i]->limits().size, ByteCount{sizes[i]});
  }
  std::vector<std::byte> byte(1);
  EXPECT_TRUE(fixed->Read(Range(1499, 1), byte).Take().ok());
  EXPECT_EQ(byte[0], std::byte{9}) << "what was added is now the child's";
}

TEST(ResizeTest, AnEndBehindAnAlignedChildsOddEndNeedsNoAlignment) {
  test::FilterStand stand;
  MemoryNode child({.size = 1000, .alignment = 512});
  child.Fill(Range(0, 1000), std::byte{3});
  const auto filter = NewResize(child, stand.environment(), {Mode::kSize, 1100});
  std::vector<std::byte> bytes(588);
  EXPECT_TRUE(filter->Read(Range(512, 588), bytes).Take().ok());
  std::vector<std::byte> expected = test::Filled(488, 3);
  expected.resize(588);
  EXPECT_EQ(bytes, expected);
}

TEST(ResizeTest, FitsWhereNoEndIsWithinAUnit) {
  block::Limits child;
  child.size = ByteCount{1000};
  child.alignment = ByteCount{512};
  EXPECT_TRUE(ResizeFits({Mode::kRoundUp, 16}, child));
  EXPECT_TRUE(ResizeFits({Mode::kRoundDown, 512}, child));
  EXPECT_FALSE(ResizeFits({Mode::kRoundDown, 256}, child));
  EXPECT_TRUE(ResizeFits({Mode::kSize, 512}, child));
  EXPECT_FALSE(ResizeFits({Mode::kSize, 600}, child));
  EXPECT_FALSE(ResizeFits({Mode::kSize, 1100}, child)) << "the child may grow";
}

TEST(ResizeDeathTest, CuttingWithinAUnitIsOurBug) {
  test::FilterStand stand;
  MemoryNode child({.size = 1024, .alignment = 512});
  const ResizeOptions options{Mode::kSize, 600};
  EXPECT_DEATH(NewResize(child, stand.environment(), options), "alignment");
}

ResizeOptions PickOptions(test::RandomSource& random) {
  switch (random.Below(3)) {
    case 0:
      return {Mode::kSize, random.Between(1, 12000)};
    case 1:
      return {Mode::kRoundUp, random.PowerOfTwo(1, 8192)};
    default:
      return {Mode::kRoundDown, random.PowerOfTwo(1, 8192)};
  }
}

TEST(ResizePropertyTest, StatusAndContentAreTheChildsAndThenAHole) {
  test::RandomSource random;
  for (int round = 0; round < 300; ++round) {
    test::FilterStand stand;
    MemoryNode memory({.size = random.Between(1, 9000)});
    test::FillAtRandom(memory, random);
    test::RichNode child(memory);
    if (random.OneIn(2)) memory.SetDeferred(stand.ready, random);
    const auto filter = NewResize(child, stand.environment(), PickOptions(random));
    const uint64_t size = filter->limits().size.value;
    const uint64_t below = memory.limits().size.value;

    ExtentList expected = block::Clip(MapOf(stand, child, WholeOf(child), 1000), WholeOf(*filter));
    if (size > below) {
      block::AppendExtent(expected, Extent{.range = Range(below, size - below),
                                           .kind = ExtentKind::kUnallocated,
                                           .layer = 0});
    }
    ASSERT_EQ(MapOf(stand, *filter, WholeOf(*filter), random.Between(1, 9)), expected);

    std::vector<std::byte> content = memory.content();
    content.resize(size);
    for (int i = 0; i < 10 && size > 0; ++i) {
      const ByteRange range = random.RangeWithin(size);
      std::vector<std::byte> bytes(range.length.value, std::byte{0xee});
      ASSERT_TRUE(stand.Finish(filter->Read(range, bytes)).ok());
      ASSERT_TRUE(test::HasAt(content, range.offset.value, bytes));
    }
  }
}

}  // namespace
}  // namespace gabion::filters
