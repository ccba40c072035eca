#include "engine/block/block_status.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/support/random_source.h"

namespace gabion::block {
namespace {

using test::RandomSource;

constexpr ExtentKind kD = ExtentKind::kData;
constexpr ExtentKind kZA = ExtentKind::kZeroAllocated;
constexpr ExtentKind kZP = ExtentKind::kZero;
constexpr ExtentKind kN = ExtentKind::kUnallocated;
constexpr uint32_t kLayers = 3;

struct Atom {
  uint64_t length;
  ExtentKind kind;
  uint32_t layer;
};

std::vector<StatusRun> Merge(MergeOperator op, uint64_t granule, const std::vector<Atom>& atoms) {
  UnitMerger merger(op, ByteCount{granule}, kLayers);
  for (const Atom& atom : atoms) {
    const Extent extent{.range = Range(0, atom.length), .kind = atom.kind, .layer = atom.layer};
    merger.Add(ByteCount{atom.length}, AtomValue(op, extent, kLayers));
  }
  merger.Finish();
  return merger.runs();
}

TEST(AllocationValueTest, FlagsOfTheKinds) {
  EXPECT_EQ(AllocationValue(kD), 0u);
  EXPECT_EQ(AllocationValue(kZA), 2u);
  EXPECT_EQ(AllocationValue(kZP), 3u);
  EXPECT_EQ(AllocationValue(kN), 3u);
}

TEST(UnitMergerTest, TruthTableOfAllocation) {
  // Every set of kinds in one unit, in both orders.
  for (int set = 1; set < 16; ++set) {
    std::vector<Atom> atoms;
    for (int kind = 0; kind < 4; ++kind) {
      if ((set >> kind & 1) != 0) atoms.push_back({16, static_cast<ExtentKind>(kind), 1});
    }
    const bool data = (set >> static_cast<int>(kD) & 1) != 0;
    const bool reserved = (set >> static_cast<int>(kZA) & 1) != 0;
    const uint64_t expected = data ? 0 : reserved ? 2 : 3;
    for (int order = 0; order < 2; ++order) {
      const std::vector<StatusRun> runs = Merge(MergeOperator::kAllocation, 64, atoms);
      ASSERT_EQ(runs.size(), 1u) << "set " << set;
      EXPECT_EQ(runs[0].status, expected) << "set " << set;
      std::reverse(atoms.begin(), atoms.end());
    }
  }
}

TEST(UnitMergerTest, HoleAloneFromAForeignSourceIsData) {
  UnitMerger merger(MergeOperator::kAllocation, ByteCount{8}, 1);
  merger.Add(ByteCount{4}, kStatusHole);
  merger.Add(ByteCount{4}, kStatusHole | kStatusZero);
  EXPECT_EQ(merger.runs(), (std::vector<StatusRun>{{8, 0}}));
}

TEST(UnitMergerTest, DepthOfAMixedUnit) {
  const std::vector<Atom> layers_2_and_3{{4, kD, 3}, {4, kZP, 2}};
  EXPECT_EQ(Merge(MergeOperator::kDepthMin, 8, layers_2_and_3)[0].status, 2u);
  EXPECT_EQ(Merge(MergeOperator::kDepthMax, 8, layers_2_and_3)[0].status, 3u);
}

TEST(UnitMergerTest, PartlyUnallocatedUnitIsDeeperThanEveryLayer) {
  const std::vector<Atom> atoms{{4, kD, 2}, {4, kN, 0}};
  EXPECT_EQ(Merge(MergeOperator::kDepthMin, 8, atoms)[0].status, 2u);
  EXPECT_EQ(Merge(MergeOperator::kDepthMax, 8, atoms)[0].status, kLayers + 1);
}

TEST(UnitMergerTest, UnallocatedUnitHasDepthZero) {
  const std::vector<Atom> atoms{{8, kN, 0}};
  EXPECT_EQ(Merge(MergeOperator::kDepthMin, 8, atoms)[0].status, 0u);
  EXPECT_EQ(Merge(MergeOperator::kDepthMax, 8, atoms)[0].status, 0u);
}

TEST(UnitMergerTest, ADirtyByteMakesItsUnitDirty) {
  UnitMerger merger(MergeOperator::kAny, ByteCount{4}, 1);
  merger.Add(ByteCount{5}, 0);
  merger.Add(ByteCount{1}, 1);
  merger.Add(ByteCount{6}, 0);
  EXPECT_EQ(merger.runs(), (std::vector<StatusRun>{{4, 0}, {4, 1}, {4, 0}}));
}

TEST(UnitMergerTest, PaddingChangesNoValue) {
  const MergeOperator operators[] = {MergeOperator::kAllocation, MergeOperator::kDepthMin,
                                     MergeOperator::kDepthMax};
  const Atom atoms[] = {{5, kD, 2}, {5, kZA, 1}, {5, kZP, 3}, {5, kN, 0}};
  for (const MergeOperator op : operators) {
    for (const Atom& atom : atoms) {
      const Extent extent{.range = Range(0, 5), .kind = atom.kind, .layer = atom.layer};
      UnitMerger merger(op, ByteCount{8}, kLayers);
      merger.Add(ByteCount{5}, AtomValue(op, extent, kLayers));
      merger.AddPadding(ByteCount{3});
      ASSERT_EQ(merger.runs().size(), 1u);
      EXPECT_EQ(merger.runs()[0].length, 8u);
      EXPECT_EQ(merger.runs()[0].status, Merge(op, 1, {atom})[0].status);
    }
  }
}

TEST(UnitMergerTest, AUnitOfPaddingIsAnUnallocatedCleanHole) {
  const std::pair<MergeOperator, uint64_t> expected[] = {{MergeOperator::kAllocation, 3},
                                                         {MergeOperator::kDepthMin, 0},
                                                         {MergeOperator::kDepthMax, 0},
                                                         {MergeOperator::kAny, 0}};
  for (const auto& [op, status] : expected) {
    UnitMerger merger(op, ByteCount{8}, kLayers);
    merger.AddPadding(ByteCount{16});
    EXPECT_EQ(merger.runs(), (std::vector<StatusRun>{{16, status}}));
  }
}

TEST(UnitMergerTest, FinishKeepsTheLengthOfAPartialUnit) {
  EXPECT_EQ(Merge(MergeOperator::kAllocation, 8, {{8, kZP, 1}, {3, kD, 1}}),
            (std::vector<StatusRun>{{8, 3}, {3, 0}}));
}

TEST(UnitMergerTest, LongAtomsCostOneRun) {
  UnitMerger merger(MergeOperator::kAllocation, ByteCount{512}, 1);
  merger.Add(ByteCount{uint64_t{1} << 62}, 3);
  merger.Add(ByteCount{uint64_t{1} << 61}, 3);
  EXPECT_EQ(merger.runs(), (std::vector<StatusRun>{{(uint64_t{3} << 61), 3}}));
}

// The model merges byte by byte.
uint64_t ModelStatus(MergeOperator op, const std::vector<Atom>& bytes) {
  bool hole = true;
  bool zero = true;
  uint64_t low = kLayers + 1;
  uint64_t high = 0;
  for (const Atom& byte : bytes) {
    hole = hole && (byte.kind == kZP || byte.kind == kN);
    zero = zero && byte.kind != kD;
    const uint64_t depth = byte.kind == kN ? kLayers + 1 : byte.layer;
    low = std::min(low, depth);
    high = std::max(high, depth);
  }
  if (op == MergeOperator::kAllocation) return (zero ? 2u : 0u) | (zero && hole ? 1u : 0u);
  if (low == kLayers + 1) return 0;
  return op == MergeOperator::kDepthMin ? low : high;
}

TEST(UnitMergerTest, AgreesWithAByteWiseModel) {
  RandomSource random;
  const MergeOperator operators[] = {MergeOperator::kAllocation, MergeOperator::kDepthMin,
                                     MergeOperator::kDepthMax};
  for (int round = 0; round < 3000; ++round) {
    const uint64_t granule = random.PowerOfTwo(1, 32);
    std::vector<Atom> atoms;
    std::vector<Atom> bytes;
    for (uint64_t n = random.Between(1, 12); n > 0; --n) {
      Atom atom{random.Between(1, 40), static_cast<ExtentKind>(random.Below(4)), 0};
      if (atom.kind != kN) atom.layer = random.Between(1, kLayers);
      atoms.push_back(atom);
      bytes.insert(bytes.end(), atom.length, Atom{1, atom.kind, atom.layer});
    }
    const MergeOperator op = random.Pick(operators);
    uint64_t at = 0;
    uint64_t last = ~uint64_t{0};
    for (const StatusRun& run : Merge(op, granule, atoms)) {
      EXPECT_NE(run.status, last) << "equal neighbours";
      last = run.status;
      const uint64_t end = at + run.length;
      EXPECT_TRUE(end % granule == 0 || end == bytes.size());
      for (; at < end; at += std::min(granule, end - at)) {
        const auto first = bytes.begin() + at;
        const std::vector<Atom> unit(first, first + std::min(granule, end - at));
        EXPECT_EQ(run.status, ModelStatus(op, unit));
      }
    }
    EXPECT_EQ(at, bytes.size());
  }
}

}  // namespace
}  // namespace gabion::block
