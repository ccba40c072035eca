// The parts of the check that need no image.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <vector>

#include "engine/formats/qcow2/l2_batch.h"
#include "engine/formats/qcow2/refcount_map.h"
#include "engine/formats/qcow2/table_file.h"
#include "engine/formats/qcow2/table_sweep.h"
#include "tests/support/random_source.h"
#include "tests/support_io/memory_file.h"

namespace gabion::qcow2 {
namespace {

using test::RandomSource;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Use = RefcountMap::Use;

TEST(RefcountMapTest, CountsAreExactHoweverLarge) {
  RandomSource random;
  RefcountMap map;
  map.Reset(1000, 100000);
  std::map<uint64_t, uint64_t> model;
  for (int i = 0; i < 20000; ++i) {
    const uint64_t cluster =
        random.OneIn(2) ? 1000 + random.Below(5) : random.Between(1000, 100999);
    const uint64_t count = random.PowerOfTwo(1, uint64_t{1} << 40);
    if (random.OneIn(5)) {
      map.SetCount(cluster, count - 1);
      model[cluster] = count - 1;
    } else {
      map.Add(cluster, count, Use::kData);
      model[cluster] += count;
    }
  }
  for (uint64_t cluster = 1000; cluster < 101000; ++cluster) {
    ASSERT_EQ(map.Count(cluster), model[cluster]) << cluster;
  }
  map.Reset(0, 2000);
  EXPECT_EQ(map.Count(1000), 0u);
}

TEST(RefcountMapTest, CountsStopAtTheLargestNumber) {
  RefcountMap map;
  map.Reset(0, 10);
  map.Add(3, ~uint64_t{0} - 1, Use::kData);
  map.Add(3, 5, Use::kData);
  EXPECT_EQ(map.Count(3), ~uint64_t{0});
}

TEST(RefcountMapTest, AWindowHoldsItsClustersOnly) {
  RefcountMap map;
  map.Reset(64, 128);
  EXPECT_FALSE(map.Holds(63));
  EXPECT_TRUE(map.Holds(64));
  EXPECT_TRUE(map.Holds(191));
  EXPECT_FALSE(map.Holds(192));
  EXPECT_FALSE(map.Holds(~uint64_t{0}));
}

TEST(RefcountMapTest, DataAndTablesMayBeSharedAmongThemselvesOnly) {
  RefcountMap map;
  map.Reset(0, 100);
  const auto after = [&](uint64_t cluster, std::vector<Use> uses) {
    for (const Use use : uses) map.Add(cluster, 1, use);
    return map.Overlaps(cluster);
  };
  EXPECT_FALSE(map.Overlaps(0));
  EXPECT_FALSE(after(1, {Use::kData, Use::kData}));
  EXPECT_FALSE(after(2, {Use::kL2Table, Use::kL2Table}));
  EXPECT_FALSE(after(3, {Use::kSingle}));
  EXPECT_TRUE(after(4, {Use::kSingle, Use::kSingle}));
  EXPECT_TRUE(after(5, {Use::kSingle, Use::kData}));
  EXPECT_TRUE(after(6, {Use::kData, Use::kL2Table}));
  map.SetCount(6, 1);
  EXPECT_TRUE(map.UsedAs(6, Use::kL2Table)) << "uses stay";
}

TEST(TableSweepTest, EachByteOnceWithTheNumberOfItsTables) {
  TableSweep sweep;
  EXPECT_THAT(sweep.Runs(), IsEmpty());
  sweep.Add(100, 50);
  sweep.Add(120, 10);
  sweep.Add(150, 10);
  sweep.Add(120, 0);
  sweep.Add(300, 8);
  sweep.Add(300, 8);
  EXPECT_THAT(sweep.Runs(),
              ElementsAre(SweepRun{100, 20, 1}, SweepRun{120, 10, 2}, SweepRun{130, 20, 1},
                          SweepRun{150, 10, 1}, SweepRun{300, 8, 2}));
}

TEST(TableSweepTest, RandomTablesAreCountedByteByByte) {
  RandomSource random;
  for (int round = 0; round < 200; ++round) {
    std::vector<uint64_t> model(200);
    TableSweep sweep;
    for (uint64_t i = random.Below(12); i > 0; --i) {
      const ByteRange range = random.RangeWithin(model.size());
      sweep.Add(range.offset.value, range.length.value);
      for (uint64_t at = range.offset.value; at < range.end().value; ++at) ++model[at];
    }
    std::vector<uint64_t> counted(model.size());
    for (const SweepRun& run : sweep.Runs()) {
      for (uint64_t at = run.offset; at < run.offset + run.length; ++at) {
        ASSERT_EQ(counted[at], 0u) << "runs are disjoint";
        counted[at] = run.tables;
      }
    }
    ASSERT_EQ(counted, model);
  }
}

TEST(L2BatchTest, AllBatchesTogetherHaveEachTableOnce) {
  RandomSource random;
  for (int round = 0; round < 200; ++round) {
    const std::size_t capacity = random.Between(1, 20);
    const uint64_t places = random.Between(1, 60);
    std::vector<L2Table> added;
    std::map<uint64_t, L2Table> model;
    for (uint64_t i = random.Below(300); i > 0; --i) {
      const bool active = random.OneIn(2);
      const L2Table table{random.Below(places) * 512, static_cast<uint32_t>(random.Between(1, 3)),
                          active ? static_cast<uint32_t>(random.Below(9)) : L2Table::kInactive};
      added.push_back(table);
      L2Table& joined = model.try_emplace(table.offset, L2Table{table.offset}).first->second;
      joined.references += table.references;
      joined.l1_index = std::min(joined.l1_index, table.l1_index);
    }
    std::vector<L2Table> seen;
    for (uint64_t from = 0; from != ~uint64_t{0};) {
      L2Batch batch(from, capacity);
      for (const L2Table& table : added) batch.Add(table);
      const std::vector<L2Table>& tables = batch.Finish();
      ASSERT_LE(tables.size(), capacity);
      seen.insert(seen.end(), tables.begin(), tables.end());
      ASSERT_GT(batch.end(), from);
      from = batch.end();
    }
    ASSERT_EQ(seen.size(), model.size());
    for (std::size_t i = 0; const auto& [offset, table] : model) {
      ASSERT_EQ(seen[i].offset, offset);
      ASSERT_EQ(seen[i].references, table.references);
      ASSERT_EQ(seen[i].l1_index, table.l1_index);
      ++i;
    }
  }
}

TEST(L2BatchTest, ReferencesStopAtTheLargestNumber) {
  L2Batch batch(0, 10);
  for (int i = 0; i < 3; ++i) batch.Add({512, ~uint32_t{0} - 1, 0});
  EXPECT_EQ(batch.Finish()[0].references, ~uint32_t{0});
}

TEST(TableFileTest, AnyRangeOfAFileOfSectorsIsReadAndWritten) {
  RandomSource random;
  for (const uint32_t unit : {1u, 512u, 4096u}) {
    test::MemoryFile memory(300000);
    memory.unit = unit;
    TableFile file(memory);
    std::vector<std::byte> model(300000);
    for (int i = 0; i < 200; ++i) {
      const ByteRange range = random.RangeWithin(200000);
      const auto at = static_cast<std::ptrdiff_t>(range.offset.value);
      std::vector<std::byte> data(range.length.value);
      if (random.OneIn(2)) {
        random.FillNonZero(data);
        ASSERT_TRUE(file.Write(range.offset.value, data).Take().ok());
        std::ranges::copy(data, model.begin() + at);
      } else {
        ASSERT_TRUE(file.Read(range.offset.value, data).Take().ok());
        ASSERT_TRUE(std::equal(data.begin(), data.end(), model.begin() + at));
      }
    }
    EXPECT_TRUE(memory.bytes() == model);
  }
}

TEST(TableFileTest, BehindTheEndAreZeros) {
  test::MemoryFile memory(1000);
  memory.bytes().assign(1000, std::byte{7});
  TableFile file(memory);
  std::vector<std::byte> data(100, std::byte{9});
  ASSERT_TRUE(file.Read(950, data).Take().ok());
  EXPECT_EQ(data[49], std::byte{7});
  EXPECT_EQ(data[50], std::byte{0});
  ASSERT_TRUE(file.Read(uint64_t{1} << 60, data).Take().ok());
  EXPECT_EQ(data[0], std::byte{0});
}

}  // namespace
}  // namespace gabion::qcow2
