#include "engine/block/run_map.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "tests/support/random_source.h"

namespace gabion::block {
namespace {

using UnitRun = RunMap::Run;

constexpr uint64_t kEnd = ~uint64_t{0};

TEST(RunMapTest, NothingIsKnownAtFirst) {
  const RunMap map;
  EXPECT_EQ(map.Find(0), (UnitRun{0, kEnd, 0}));
  EXPECT_EQ(map.Find(7), (UnitRun{0, kEnd, 0}));
  EXPECT_EQ(map.size(), 0u);
}

TEST(RunMapTest, NeighboursOfOneStateAreOneRun) {
  RunMap map;
  map.Set(10, 20, 1);
  map.Set(30, 40, 1);
  map.Set(20, 30, 1);
  EXPECT_EQ(map.Find(25), (UnitRun{10, 40, 1}));
  EXPECT_EQ(map.size(), 1u);
}

TEST(RunMapTest, ARunIsCutInTwo) {
  RunMap map;
  map.Set(10, 20, 1);
  map.Set(14, 16, 2);
  EXPECT_EQ(map.Find(10), (UnitRun{10, 14, 1}));
  EXPECT_EQ(map.Find(15), (UnitRun{14, 16, 2}));
  EXPECT_EQ(map.Find(19), (UnitRun{16, 20, 1}));
  EXPECT_EQ(map.Find(20), (UnitRun{20, kEnd, 0}));
  EXPECT_EQ(map.CountUnits(1), 8u);
}

TEST(RunMapTest, AllUnitsOfTheLargestDiskAreOneRun) {
  RunMap map;
  map.Set(0, uint64_t{1} << 54, 3);
  EXPECT_EQ(map.Find(12345), (UnitRun{0, uint64_t{1} << 54, 3}));
  map.Set(5, 6, 0);
  EXPECT_EQ(map.Find(5), (UnitRun{5, 6, 0}));
  EXPECT_EQ(map.CountUnits(3), (uint64_t{1} << 54) - 1);
}

UnitRun FindIn(const std::vector<uint8_t>& model, uint64_t unit) {
  uint64_t begin = unit;
  while (begin > 0 && model[begin - 1] == model[unit]) --begin;
  uint64_t end = unit;
  while (end < model.size() && model[end] == model[unit]) ++end;
  if (end == model.size() && model[unit] == 0) end = kEnd;
  return {begin, end, model[unit]};
}

TEST(RunMapPropertyTest, SaysWhatAnArrayWould) {
  test::RandomSource random;
  for (int round = 0; round < 200; ++round) {
    std::vector<uint8_t> model(random.Between(1, 60));
    RunMap map;
    for (int step = 0; step < 100; ++step) {
      const uint64_t begin = random.Below(model.size() + 1);
      const uint64_t end = random.Between(begin, model.size());
      const auto state = static_cast<uint8_t>(random.Below(RunMap::kStates));
      map.Set(begin, end, state);
      std::fill(model.data() + begin, model.data() + end, state);
      std::size_t runs = 0;
      for (uint64_t unit = 0; unit < model.size(); ++unit) {
        const UnitRun run = FindIn(model, unit);
        ASSERT_EQ(map.Find(unit), run) << unit;
        runs += run.begin == unit && run.state != 0 ? 1 : 0;
      }
      ASSERT_EQ(map.size(), runs);
      for (uint8_t each = 1; each < RunMap::kStates; ++each) {
        ASSERT_EQ(map.CountUnits(each), std::count(model.begin(), model.end(), each));
      }
    }
  }
}

}  // namespace
}  // namespace gabion::block
