#include "engine/inspect.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <random>
#include <tuple>
#include <utility>
#include <vector>

namespace gabion::engine {
namespace {

using block::Extent;
using block::ExtentKind;
using block::ExtentList;
using block::kNoHostOffset;

Extent Data(uint64_t offset, uint64_t length, uint32_t layer = 1) {
  return {Range(offset, length), ExtentKind::kData, layer, offset + 1000 * layer, false};
}
Extent Hole(uint64_t offset, uint64_t length, uint32_t layer = 1) {
  return {Range(offset, length), ExtentKind::kZero, layer, kNoHostOffset, false};
}
Extent Nowhere(uint64_t offset, uint64_t length) {
  return {Range(offset, length), ExtentKind::kUnallocated, 0, kNoHostOffset, false};
}
Extent Preallocated(uint64_t offset, uint64_t length) {
  return {Range(offset, length), ExtentKind::kZeroAllocated, 1, offset + 1000, false};
}

std::vector<MapExtent> Merge(const ExtentList& atoms, uint32_t granularity, uint32_t layers = 1,
                             uint64_t padding = 0) {
  MapMerger merger(ByteOffset{0}, granularity, layers);
  merger.Add(atoms);
  merger.AddPadding(ByteCount{padding});
  merger.Finish();
  return merger.Take(1 << 20);
}

TEST(MapMergerTest, GranularityZeroTellsAtomsAsTheyAre) {
  const auto runs = Merge({Data(0, 3), Hole(3, 5), Nowhere(8, 2), Preallocated(10, 1)}, 0);
  ASSERT_EQ(runs.size(), 4u);
  EXPECT_EQ(runs[0], (MapExtent{Range(0, 3), false, true, 1, 1, 1, 1000}));
  EXPECT_EQ(runs[1], (MapExtent{Range(3, 5), true, false, 1, 1, 1, kNoHostOffset}));
  EXPECT_EQ(runs[2], (MapExtent{Range(8, 2), true, false, 0, 0, 0, kNoHostOffset}));
  EXPECT_EQ(runs[3], (MapExtent{Range(10, 1), true, true, 1, 1, 1, 1010}));
}

TEST(MapMergerTest, HoleHasNoHostOffsetEvenIfItsLayerTellsOne) {
  const Extent hole{Range(0, 512), ExtentKind::kZero, 1, 0, false};
  const Extent compressed{Range(512, 512), ExtentKind::kData, 1, 4096, true};
  const auto runs = Merge({hole, compressed}, 0);
  ASSERT_EQ(runs.size(), 2u);
  EXPECT_EQ(runs[0].host_offset, kNoHostOffset);
  EXPECT_EQ(runs[1].host_offset, kNoHostOffset);
}

TEST(MapMergerTest, AUnitIsCompressedIfAllOfItIs) {
  const auto compressed = [](uint64_t offset, uint64_t length) {
    return Extent{Range(offset, length), ExtentKind::kData, 1, 4096, true};
  };
  const auto whole = Merge({compressed(0, 512), compressed(512, 512), Data(1024, 1024)}, 1024);
  ASSERT_EQ(whole.size(), 2u);
  EXPECT_EQ(whole[0], (MapExtent{Range(0, 1024), false, true, 1, 1, 1, kNoHostOffset, true}));
  EXPECT_FALSE(whole[1].compressed);
  const auto mixed = Merge({compressed(0, 512), Data(512, 512)}, 1024);
  ASSERT_EQ(mixed.size(), 1u);
  EXPECT_FALSE(mixed[0].compressed);
  EXPECT_EQ(Merge({compressed(0, 512), Data(512, 512)}, 0).size(), 2u);
}

TEST(MapMergerTest, UnitWithAnyDataIsData) {
  const auto runs = Merge({Hole(0, 511), Data(511, 1), Hole(512, 512)}, 512);
  ASSERT_EQ(runs.size(), 2u);
  EXPECT_EQ(runs[0], (MapExtent{Range(0, 512), false, true, 1, 1, 1, kNoHostOffset}));
  EXPECT_EQ(runs[1], (MapExtent{Range(512, 512), true, false, 1, 1, 1, kNoHostOffset}));
}

TEST(MapMergerTest, PreallocatedWithHoleIsZeroButNoHole) {
  const auto runs = Merge({Preallocated(0, 100), Hole(100, 412)}, 512);
  ASSERT_EQ(runs.size(), 1u);
  EXPECT_TRUE(runs[0].zero);
  EXPECT_TRUE(runs[0].allocated);
}

// The chain of section 11.2: 512-byte clusters with data below a 1 MiB cluster, all else nowhere.
TEST(MapMergerTest, SeedImageAtFourKibibytes) {
  const ExtentList atoms = {Data(0, 512, 2), Nowhere(512, 512), Data(1024, 512, 2),
                            Nowhere(1536, 104856064)};
  const auto runs = Merge(atoms, 4096, 2);
  ASSERT_EQ(runs.size(), 2u);
  EXPECT_EQ(runs[0], (MapExtent{Range(0, 4096), false, true, 2, 3, 0, kNoHostOffset}));
  EXPECT_EQ(runs[1], (MapExtent{Range(4096, 104853504), true, false, 0, 0, 0, kNoHostOffset}));
}

TEST(MapMergerTest, MixedLayersTellTopmostAndDeepest) {
  const auto runs = Merge({Data(0, 512, 2), Data(512, 512, 1), Data(1024, 512, 2)}, 512, 2);
  ASSERT_EQ(runs.size(), 3u);
  const auto merged = Merge({Data(0, 512, 2), Data(512, 512, 1), Data(1024, 3072, 2)}, 4096, 2);
  ASSERT_EQ(merged.size(), 1u);
  EXPECT_EQ(merged[0], (MapExtent{Range(0, 4096), false, true, 1, 2, 0, kNoHostOffset}));
}

TEST(MapMergerTest, PaddingChangesNothingAboutTheLastUnit) {
  const auto runs = Merge({Hole(0, 1024), Data(1024, 300)}, 512, 1, 212);
  ASSERT_EQ(runs.size(), 2u);
  EXPECT_EQ(runs[1], (MapExtent{Range(1024, 512), false, true, 1, 1, 1, 2024}));
}

TEST(MapMergerTest, PaddingOfWholeUnitsIsInNoLayer) {
  const auto runs = Merge({Data(0, 1000)}, 512, 1, 4096 - 1000);
  ASSERT_EQ(runs.size(), 2u);
  EXPECT_EQ(runs[0].range, Range(0, 1024));
  EXPECT_EQ(runs[1], (MapExtent{Range(1024, 3072), true, false, 0, 0, 0, kNoHostOffset}));
}

TEST(MapMergerTest, LastUnitOfADiskWithoutPaddingIsShort) {
  const auto runs = Merge({Data(0, 1000)}, 512);
  ASSERT_EQ(runs.size(), 1u);
  EXPECT_EQ(runs[0].range, Range(0, 1000));
}

TEST(MapMergerTest, RunThatMayGrowIsNotToldBeforeItsEndIsKnown) {
  MapMerger merger(ByteOffset{0}, 512, 1);
  merger.Add({Data(0, 1024)});
  EXPECT_TRUE(merger.Take(10).empty());
  merger.Add({Data(1024, 512)});
  merger.Finish();
  const auto runs = merger.Take(10);
  ASSERT_EQ(runs.size(), 1u);
  EXPECT_EQ(runs[0].range, Range(0, 1536));
}

TEST(MapMergerTest, HugeExtentCostsOneStep) {
  const auto runs = Merge({Hole(0, uint64_t{1} << 62), Data(uint64_t{1} << 62, 100)}, 1);
  EXPECT_EQ(runs.size(), 2u);
}

// Oracle: every unit computed byte by byte.
class MapMergerPropertyTest : public testing::Test {
 protected:
  struct Byte {
    ExtentKind kind;
    uint32_t layer;
  };

  static ExtentList Atoms(const std::vector<Byte>& bytes) {
    ExtentList atoms;
    for (uint64_t i = 0; i < bytes.size(); ++i) {
      const Extent atom{Range(i, 1), bytes[i].kind, bytes[i].layer, kNoHostOffset, false};
      if (!atoms.empty() && atoms.back().kind == atom.kind && atoms.back().layer == atom.layer) {
        ++atoms.back().range.length.value;
      } else {
        atoms.push_back(atom);
      }
    }
    return atoms;
  }

  static MapExtent Unit(const std::vector<Byte>& bytes, uint64_t begin, uint64_t end, uint32_t n) {
    MapExtent unit{Range(begin, end - begin), true, false, n + 1, 0, bytes[begin].layer};
    for (uint64_t i = begin; i < end; ++i) {
      const uint32_t depth = bytes[i].layer == 0 ? n + 1 : bytes[i].layer;
      unit.zero = unit.zero && bytes[i].kind != ExtentKind::kData;
      unit.allocated = unit.allocated || bytes[i].kind == ExtentKind::kData ||
                       bytes[i].kind == ExtentKind::kZeroAllocated;
      unit.min_depth = std::min(unit.min_depth, depth);
      unit.max_depth = std::max(unit.max_depth, depth);
      if (bytes[i].layer != unit.layer) unit.layer = 0;
    }
    if (unit.min_depth == n + 1) unit.min_depth = unit.max_depth = 0;
    return unit;
  }
};

TEST_F(MapMergerPropertyTest, EveryUnitIsTheMergeOfItsBytes) {
  const char* given = std::getenv("GABION_SEED");
  const uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 10) : 20261122;
  SCOPED_TRACE(testing::Message() << "GABION_SEED=" << seed);
  std::mt19937_64 random(seed);
  for (int round = 0; round < 2000; ++round) {
    const uint32_t layers = 1 + random() % 3;
    std::vector<Byte> bytes(1 + random() % 200);
    for (uint64_t i = 0; i < bytes.size(); ++i) {
      const auto kind = static_cast<ExtentKind>(random() % 4);
      const Byte fresh{kind, kind == ExtentKind::kUnallocated
                                 ? 0
                                 : static_cast<uint32_t>(1 + random() % layers)};
      bytes[i] = i > 0 && random() % 4 != 0 ? bytes[i - 1] : fresh;
    }
    const uint32_t granularity = 1u << (random() % 7);
    MapMerger merger(ByteOffset{0}, granularity, layers);
    ExtentList atoms = Atoms(bytes);
    std::vector<MapExtent> runs;
    for (const Extent& atom : atoms) {
      merger.Add({atom});
      const auto some = merger.Take(random() % 3);
      runs.insert(runs.end(), some.begin(), some.end());
    }
    merger.Finish();
    const auto rest = merger.Take(1000);
    runs.insert(runs.end(), rest.begin(), rest.end());
    uint64_t at = 0;
    for (const MapExtent& run : runs) {
      ASSERT_EQ(run.range.offset.value, at);
      for (; at < run.range.end().value;) {
        const uint64_t end = std::min<uint64_t>(at + granularity, bytes.size());
        MapExtent unit = Unit(bytes, at, end, layers);
        ASSERT_EQ(std::tie(unit.zero, unit.allocated, unit.min_depth, unit.max_depth, unit.layer),
                  std::tie(run.zero, run.allocated, run.min_depth, run.max_depth, run.layer))
            << "round " << round << " unit at " << at;
        at = end;
      }
      ASSERT_EQ(at, run.range.end().value);
    }
    ASSERT_EQ(at, bytes.size());
  }
}

}  // namespace
}  // namespace gabion::engine
