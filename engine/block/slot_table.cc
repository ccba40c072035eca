#include "engine/block/slot_table.h"

#include <algorithm>

#include "engine/base/check.h"

namespace gabion::block {

SlotTable::SlotTable(Slot slots) : slots_(slots) {
  free_.reserve(slots);
  for (Slot slot = slots; slot > 0; --slot) free_.push_back(slot - 1);
}

SlotTable::~SlotTable() {
  for (const Entry& entry : slots_) CHECK_EQ(entry.pins, 0u);
}

SlotTable::Slot SlotTable::Peek(uint64_t block) const {
  const auto found = by_block_.find(block);
  return found == by_block_.end() ? kNoSlot : found->second;
}

SlotTable::Slot SlotTable::Find(uint64_t block) {
  const Slot slot = Peek(block);
  if (slot != kNoSlot) slots_[slot].used = true;
  return slot;
}

std::vector<uint64_t> SlotTable::BlocksWithin(uint64_t begin, uint64_t end) const {
  std::vector<uint64_t> blocks;
  if (end - begin < by_block_.size()) {
    for (uint64_t block = begin; block < end; ++block) {
      if (Peek(block) != kNoSlot) blocks.push_back(block);
    }
    return blocks;
  }
  for (const auto& [block, slot] : by_block_) {
    if (block >= begin && block < end) blocks.push_back(block);
  }
  return blocks;
}

SlotTable::Slot SlotTable::Reserve() {
  if (free_.empty() && dirty() == by_block_.size()) return kNoSlot;
  // Twice round: the first time may only take the marks of use away.
  for (uint64_t left = 2 * uint64_t{slots()}; free_.empty() && left > 0; --left) {
    const Slot slot = hand_;
    Entry& entry = slots_[slot];
    hand_ = hand_ + 1 == slots() ? 0 : hand_ + 1;
    if (entry.block == kNoBlock || entry.pins > 0 || entry.dirty) continue;
    if (std::exchange(entry.used, false)) continue;
    ++evictions_;
    Drop(slot);
  }
  if (free_.empty()) return kNoSlot;
  const Slot slot = free_.back();
  free_.pop_back();
  slots_[slot].reserved = true;
  return slot;
}

void SlotTable::Publish(Slot slot, uint64_t block) {
  Entry& entry = slots_[slot];
  CHECK(entry.reserved);
  CHECK(by_block_.emplace(block, slot).second);
  entry.reserved = false;
  entry.block = block;
  entry.used = true;
}

void SlotTable::Cancel(Slot slot) {
  CHECK(slots_[slot].reserved);
  slots_[slot].reserved = false;
  FreeIfUnused(slot);
}

void SlotTable::Drop(Slot slot) {
  Entry& entry = slots_[slot];
  if (entry.block == kNoBlock) return;
  dirty_.Set(entry.block, entry.block + 1, 0);
  by_block_.erase(entry.block);
  entry.block = kNoBlock;
  entry.used = false;
  entry.dirty = false;
  FreeIfUnused(slot);
}

void SlotTable::DropAll() {
  for (Slot slot = 0; slot < slots(); ++slot) Drop(slot);
}

void SlotTable::SetDirty(uint64_t block) {
  const Slot slot = Peek(block);
  CHECK(slot != kNoSlot);
  slots_[slot].dirty = true;
  dirty_.Set(block, block + 1, kDirty);
}

void SlotTable::SetClean(uint64_t block) {
  const Slot slot = Peek(block);
  CHECK(slot != kNoSlot);
  slots_[slot].dirty = false;
  dirty_.Set(block, block + 1, 0);
}

SlotTable::Blocks SlotTable::NextDirty(uint64_t block) const {
  RunMap::Run run = dirty_.Find(block);
  if (run.state == 0) {
    if (run.end == ~uint64_t{0}) return {~uint64_t{0}, ~uint64_t{0}};
    run = dirty_.Find(run.end);
  }
  return {std::max(run.begin, block), run.end};
}

void SlotTable::Unpin(Slot slot) {
  CHECK_GT(slots_[slot].pins, 0u);
  --slots_[slot].pins;
  FreeIfUnused(slot);
}

void SlotTable::FreeIfUnused(Slot slot) {
  const Entry& entry = slots_[slot];
  if (entry.block == kNoBlock && entry.pins == 0 && !entry.reserved) free_.push_back(slot);
}

}  // namespace gabion::block
