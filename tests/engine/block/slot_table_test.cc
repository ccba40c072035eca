#include "engine/block/slot_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <vector>

#include "tests/support/random_source.h"

namespace gabion::block {
namespace {

using Slot = SlotTable::Slot;
constexpr Slot kNoSlot = SlotTable::kNoSlot;

Slot Put(SlotTable& table, uint64_t block) {
  const Slot slot = table.Reserve();
  if (slot != kNoSlot) table.Publish(slot, block);
  return slot;
}

TEST(SlotTableTest, ABlockIsFoundOnceItIsPublished) {
  SlotTable table(2);
  const Slot slot = table.Reserve();
  EXPECT_EQ(table.Find(7), kNoSlot);
  table.Publish(slot, 7);
  EXPECT_EQ(table.Find(7), slot);
  table.Drop(slot);
  EXPECT_EQ(table.Find(7), kNoSlot);
}

TEST(SlotTableTest, TheBlockThatNobodyFoundGoesFirst) {
  SlotTable table(3);
  for (uint64_t block = 0; block < 3; ++block) Put(table, block);
  Put(table, 3);  // takes the marks of all away, and the first block
  EXPECT_EQ(table.Peek(0), kNoSlot);
  EXPECT_NE(table.Find(1), kNoSlot);
  Put(table, 4);
  EXPECT_NE(table.Peek(1), kNoSlot);
  EXPECT_EQ(table.Peek(2), kNoSlot);
  EXPECT_EQ(table.evictions(), 2u);
}

TEST(SlotTableTest, DirtyAndPinnedBlocksStay) {
  SlotTable table(2);
  const Slot dirty = Put(table, 1);
  table.SetDirty(1);
  const Slot pinned = Put(table, 2);
  {
    const SlotTable::Pin pin(table, pinned);
    EXPECT_EQ(table.Reserve(), kNoSlot);
  }
  EXPECT_EQ(table.Reserve(), pinned);
  table.Publish(pinned, 3);
  table.SetDirty(3);
  EXPECT_EQ(table.Reserve(), kNoSlot);
  table.SetClean(1);
  EXPECT_EQ(table.Reserve(), dirty);
}

TEST(SlotTableTest, ASlotWhoseBlockIsDroppedIsFreeWhenItsPinsAreGone) {
  SlotTable table(1);
  const Slot slot = Put(table, 1);
  {
    const SlotTable::Pin first(table, slot);
    const SlotTable::Pin second(table, slot);
    table.Drop(slot);
    EXPECT_EQ(table.Peek(1), kNoSlot);
    EXPECT_EQ(table.Reserve(), kNoSlot);
  }
  EXPECT_EQ(Put(table, 2), slot);
  EXPECT_EQ(table.Reserve(), slot);
}

TEST(SlotTableTest, DirtyBlocksSideBySideAreFoundTogether) {
  SlotTable table(8);
  for (const uint64_t block : {3, 4, 5, 9}) {
    Put(table, block);
    table.SetDirty(block);
  }
  EXPECT_EQ(table.NextDirty(0).begin, 3u);
  EXPECT_EQ(table.NextDirty(4).begin, 4u);
  EXPECT_EQ(table.NextDirty(4).end, 6u);
  EXPECT_EQ(table.NextDirty(6).begin, 9u);
  EXPECT_EQ(table.NextDirty(10).begin, ~uint64_t{0});
  EXPECT_EQ(table.dirty(), 4u);
  table.DropAll();
  EXPECT_EQ(table.dirty(), 0u);
}

TEST(SlotTableTest, BlocksAreFoundByPlaceInSmallRangesAndLargeOnes) {
  SlotTable table(8);
  for (const uint64_t block : {3, 9, 4}) Put(table, block);
  EXPECT_THAT(table.BlocksWithin(3, 5), testing::UnorderedElementsAre(3, 4));
  EXPECT_THAT(table.BlocksWithin(4, uint64_t{1} << 60), testing::UnorderedElementsAre(4, 9));
  EXPECT_THAT(table.BlocksWithin(5, 7), testing::IsEmpty());
}

TEST(SlotTablePropertyTest, NoSlotIsLostAndNoneIsUsedTwice) {
  test::RandomSource random;
  for (int round = 0; round < 100; ++round) {
    const auto slots = static_cast<Slot>(random.Between(1, 8));
    SlotTable table(slots);
    std::vector<SlotTable::Pin> pins;
    std::vector<Slot> reserved;
    for (int step = 0; step < 200; ++step) {
      const uint64_t block = random.Below(12);
      const Slot slot = table.Find(block);
      switch (random.Below(6)) {
        case 0:
          if (slot != kNoSlot) pins.emplace_back(table, slot);
          break;
        case 1:
          pins.clear();
          break;
        case 2:
          if (slot != kNoSlot) table.Drop(slot);
          break;
        case 3:
          if (slot != kNoSlot && random.OneIn(2)) table.SetDirty(block);
          if (slot != kNoSlot && random.OneIn(2)) table.SetClean(block);
          break;
        default:
          if (const Slot fresh = table.Reserve(); fresh != kNoSlot) reserved.push_back(fresh);
          if (reserved.empty() || random.OneIn(3)) break;
          if (table.Peek(block) == kNoSlot) {
            table.Publish(reserved.back(), block);
          } else {
            table.Cancel(reserved.back());
          }
          reserved.pop_back();
      }
      std::vector<int> owners(slots);
      for (uint64_t each = 0; each < 12; ++each) {
        if (table.Peek(each) != kNoSlot) ++owners[table.Peek(each)];
      }
      for (const Slot each : reserved) ++owners[each];
      for (Slot each = 0; each < slots; ++each) ASSERT_LE(owners[each], 1);
    }
    pins.clear();
    for (const Slot each : reserved) table.Cancel(each);
    table.DropAll();
    for (Slot left = slots; left > 0; --left) ASSERT_NE(table.Reserve(), kNoSlot);
    ASSERT_EQ(table.Reserve(), kNoSlot);
  }
}

}  // namespace
}  // namespace gabion::block
