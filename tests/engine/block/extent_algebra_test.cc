#include "engine/block/extent_algebra.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "engine/base/align.h"
#include "tests/support/random_source.h"

namespace gabion::block {
namespace {

using test::RandomSource;

// One byte of the model: what the algebra must say about it.
struct ModelByte {
  ExtentKind kind = ExtentKind::kUnallocated;
  uint32_t layer = 0;
  uint64_t host = kNoHostOffset;
  friend bool operator==(const ModelByte&, const ModelByte&) = default;
};

// The bytes of `list`, which starts at `begin`.
std::vector<ModelByte> ToBytes(const ExtentList& list, uint64_t begin) {
  std::vector<ModelByte> bytes;
  for (const Extent& extent : list) {
    EXPECT_EQ(extent.range.offset.value, begin + bytes.size());
    EXPECT_FALSE(extent.range.empty());
    for (uint64_t i = 0; i < extent.range.length.value; ++i) {
      const bool hosted = extent.host_offset != kNoHostOffset;
      bytes.push_back({extent.kind, extent.layer, hosted ? extent.host_offset + i : kNoHostOffset});
    }
  }
  return bytes;
}

Extent RandomExtent(RandomSource& random, uint64_t offset, uint64_t length, uint32_t layers) {
  Extent extent{.range = Range(offset, length)};
  extent.kind = static_cast<ExtentKind>(random.Below(4));
  extent.layer = extent.kind == ExtentKind::kUnallocated ? 0 : random.Between(1, layers);
  if (extent.kind == ExtentKind::kData && random.OneIn(2)) {
    extent.host_offset = random.OneIn(2) ? offset : random.Below(1 << 20);
  }
  return extent;
}

ExtentList RandomList(RandomSource& random, uint64_t begin, uint64_t end, uint32_t layers) {
  ExtentList list;
  for (uint64_t at = begin; at < end;) {
    const uint64_t length = std::min(end - at, random.Between(1, 9));
    AppendExtent(list, RandomExtent(random, at, length, layers));
    at += length;
  }
  return list;
}

bool Mergeable(const Extent& a, const Extent& b) {
  ExtentList list{a};
  AppendExtent(list, b);
  return list.size() == 1;
}

void ExpectNormalForm(const ExtentList& list) {
  for (std::size_t i = 1; i < list.size(); ++i) {
    EXPECT_EQ(list[i - 1].range.end(), list[i].range.offset);
    EXPECT_FALSE(Mergeable(list[i - 1], list[i])) << "neighbours " << i - 1 << " and " << i;
  }
}

TEST(AppendExtentTest, MergesWhatContinuesInTheFile) {
  ExtentList list;
  AppendExtent(list, {.range = Range(0, 4), .host_offset = 100});
  AppendExtent(list, {.range = Range(4, 4), .host_offset = 104});
  ASSERT_EQ(list.size(), 1u);
  EXPECT_EQ(list[0].range, Range(0, 8));
}

TEST(AppendExtentTest, KeepsApartWhatDoesNotContinueInTheFile) {
  ExtentList list;
  AppendExtent(list, {.range = Range(0, 4), .host_offset = 100});
  AppendExtent(list, {.range = Range(4, 4), .host_offset = 200});
  AppendExtent(list, {.range = Range(8, 4)});
  EXPECT_EQ(list.size(), 3u);
}

TEST(AppendExtentTest, KeepsApartLayersKindsAndCompression) {
  ExtentList list;
  AppendExtent(list, {.range = Range(0, 4), .layer = 1});
  AppendExtent(list, {.range = Range(4, 4), .layer = 2});
  AppendExtent(list, {.range = Range(8, 4), .kind = ExtentKind::kZero, .layer = 2});
  AppendExtent(list, {.range = Range(12, 4), .layer = 2});
  AppendExtent(list, {.range = Range(16, 4), .layer = 2, .compressed = true});
  EXPECT_EQ(list.size(), 5u);
}

TEST(AppendExtentTest, NeverMergesCompressedExtentsThatHaveAPlace) {
  ExtentList list;
  AppendExtent(list, {.range = Range(0, 4), .host_offset = 100, .compressed = true});
  AppendExtent(list, {.range = Range(4, 4), .host_offset = 104, .compressed = true});
  EXPECT_EQ(list.size(), 2u);
}

TEST(AppendExtentTest, DropsEmptyExtents) {
  ExtentList list;
  AppendExtent(list, {.range = Range(7, 0)});
  EXPECT_TRUE(list.empty());
}

TEST(AppendExtentDeathTest, AGapIsABug) {
  ExtentList list{{.range = Range(0, 4)}};
  EXPECT_DEATH(AppendExtent(list, {.range = Range(5, 4)}), "");
}

TEST(ExtentAlgebraTest, ClipKeepsEveryByteWithinTheRangeAndNoOther) {
  RandomSource random;
  for (int round = 0; round < 2000; ++round) {
    const uint64_t begin = random.Below(20);
    const ExtentList list = RandomList(random, begin, begin + random.Between(1, 60), 3);
    const ByteRange range = Range(random.Below(90), random.Below(90));
    const ByteRange common = Intersect(Covered(list), range);
    const ExtentList clipped = Clip(list, range);
    ExpectNormalForm(clipped);
    const std::vector<ModelByte> all = ToBytes(list, begin);
    std::vector<ModelByte> expected;
    for (uint64_t at = common.offset.value; at < common.end().value; ++at) {
      expected.push_back(all[at - begin]);
    }
    EXPECT_EQ(ToBytes(clipped, common.offset.value), expected);
  }
}

TEST(ExtentAlgebraTest, ShiftMovesRangesAndLeavesTheFile) {
  RandomSource random;
  for (int round = 0; round < 500; ++round) {
    const uint64_t begin = random.Below(100);
    const ExtentList list = RandomList(random, begin, begin + 40, 3);
    const uint64_t from = random.Between(0, begin);
    const uint64_t to = random.Below(1000);
    const ExtentList moved = Shift(list, ByteOffset{from}, ByteOffset{to});
    EXPECT_EQ(ToBytes(moved, begin - from + to), ToBytes(list, begin));
    EXPECT_EQ(Shift(moved, ByteOffset{to}, ByteOffset{from}), list);
  }
}

TEST(ExtentAlgebraTest, DeepenLeavesTheUnallocatedAlone) {
  const ExtentList list{{.range = Range(0, 4), .layer = 1},
                        {.range = Range(4, 4), .kind = ExtentKind::kUnallocated, .layer = 0}};
  const ExtentList deeper = Deepen(list, 2);
  EXPECT_EQ(deeper[0].layer, 3u);
  EXPECT_EQ(deeper[1].layer, 0u);
}

TEST(ExtentAlgebraTest, AppendingTheHalvesGivesTheWhole) {
  RandomSource random;
  for (int round = 0; round < 500; ++round) {
    const ExtentList list = RandomList(random, 0, 50, 2);
    const uint64_t middle = random.Between(0, 50);
    ExtentList halves = Clip(list, Range(0, middle));
    AppendExtents(halves, Clip(list, Range(middle, 50 - middle)));
    EXPECT_EQ(halves, list);
  }
}

// The model of a chain: byte by byte from the top down.
ModelByte BelowModel(const std::vector<ModelByte>& backing, uint64_t size, uint64_t at) {
  if (at >= size) return {ExtentKind::kZero, 2, kNoHostOffset};
  ModelByte byte = backing[at];
  if (byte.kind != ExtentKind::kUnallocated) ++byte.layer;
  return byte;
}

TEST(OverlayTest, EveryByteComesFromTheTopmostLayerThatHasIt) {
  RandomSource random;
  for (int round = 0; round < 3000; ++round) {
    const uint64_t size = random.Below(60);
    const ExtentList backing = RandomList(random, 0, size, 3);
    const uint64_t begin = random.Below(40);
    const ExtentList top = RandomList(random, begin, begin + random.Between(1, 40), 1);
    const ExtentList seen = Overlay(top, backing, ByteCount{size});
    ExpectNormalForm(seen);
    const std::vector<ModelByte> below = ToBytes(backing, 0);
    std::vector<ModelByte> expected = ToBytes(top, begin);
    for (uint64_t i = 0; i < expected.size(); ++i) {
      if (expected[i].kind == ExtentKind::kUnallocated) {
        expected[i] = BelowModel(below, size, begin + i);
      }
    }
    EXPECT_EQ(ToBytes(seen, begin), expected);
  }
}

TEST(OverlayTest, EndsWhereTheViewOfTheBackingImageEnds) {
  RandomSource random;
  for (int round = 0; round < 1000; ++round) {
    const uint64_t size = 40;
    const ExtentList backing = RandomList(random, 0, size, 2);
    const uint64_t known = random.Below(size);
    const ExtentList top = RandomList(random, 0, 50, 1);
    const ExtentList whole = Overlay(top, backing, ByteCount{size});
    const ExtentList part = Overlay(top, Clip(backing, Range(0, known)), ByteCount{size});
    const uint64_t reached = Covered(part).end().value;
    EXPECT_EQ(part, Clip(whole, Range(0, reached)));
    if (reached < 50) {
      EXPECT_GE(reached, known);
      const std::vector<ModelByte> bytes = ToBytes(top, 0);
      EXPECT_EQ(bytes[reached].kind, ExtentKind::kUnallocated);
    }
  }
}

TEST(OverlayTest, PastAShortBackingImageZerosBelongToThatImage) {
  const ExtentList top{{.range = Range(0, 100), .kind = ExtentKind::kUnallocated, .layer = 0}};
  const ExtentList backing{{.range = Range(0, 70), .layer = 1}};
  const ExtentList expected{{.range = Range(0, 70), .layer = 2},
                            {.range = Range(70, 30), .kind = ExtentKind::kZero, .layer = 2}};
  EXPECT_EQ(Overlay(top, backing, ByteCount{70}), expected);
}

}  // namespace
}  // namespace gabion::block
