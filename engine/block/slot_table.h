// Which blocks of a disk a cache holds, and in which of its slots.
#pragma once

#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/block/run_map.h"

namespace gabion::block {

// Slots are numbered from 0. A slot is free, or reserved, or holds a block; a block is clean or
// dirty. Who waits while using a slot holds a pin on it: a pinned slot gets no other content,
// though its block may be dropped from the table. Blocks are evicted by the CLOCK rule (Corbato,
// 1968): one that was found since the hand passed stays for another round.
//
// Owned by a cache; used on one shard; no pins are left when it is destroyed.
class SlotTable {
 public:
  using Slot = uint32_t;
  static constexpr Slot kNoSlot = ~Slot{0};

  // Keeps a slot's content in place; lets go when destroyed. Movable.
  class [[nodiscard]] Pin {
   public:
    Pin(SlotTable& table, Slot slot) : table_(&table), slot_(slot) { ++table.slots_[slot].pins; }
    Pin(Pin&& other) noexcept : table_(std::exchange(other.table_, nullptr)), slot_(other.slot_) {}
    Pin& operator=(Pin&&) = delete;
    ~Pin() {
      if (table_ != nullptr) table_->Unpin(slot_);
    }
    Slot slot() const { return slot_; }

   private:
    SlotTable* table_;
    Slot slot_;
  };

  explicit SlotTable(Slot slots);
  SlotTable(const SlotTable&) = delete;
  SlotTable& operator=(const SlotTable&) = delete;
  ~SlotTable();

  Slot slots() const { return static_cast<Slot>(slots_.size()); }

  // Where `block` is, or kNoSlot. Find() counts as use.
  Slot Find(uint64_t block);
  Slot Peek(uint64_t block) const;
  // Those of the blocks [begin, end) that are in slots, in any order.
  std::vector<uint64_t> BlocksWithin(uint64_t begin, uint64_t end) const;

  // A slot to fill: a free one, or that of a clean block without pins, which is dropped; kNoSlot if
  // there is none. Publish() or Cancel() ends the reservation.
  Slot Reserve();
  // REQUIRES: `block` is in no slot.
  void Publish(Slot slot, uint64_t block);
  void Cancel(Slot slot);

  // Forgets the block of `slot`, dirty or clean, if it holds one.
  void Drop(Slot slot);
  void DropAll();

  bool IsDirty(uint64_t block) const { return dirty_.Find(block).state != 0; }
  // REQUIRES: `block` is in a slot.
  void SetDirty(uint64_t block);
  void SetClean(uint64_t block);
  uint64_t dirty() const { return dirty_.CountUnits(kDirty); }

  // The first dirty blocks at `block` or behind it that lie side by side: [begin, end), both ~0 if
  // there are none.
  struct Blocks {
    uint64_t begin = 0;
    uint64_t end = 0;
  };
  Blocks NextDirty(uint64_t block) const;

  // Blocks that had to go for others.
  uint64_t evictions() const { return evictions_; }

 private:
  static constexpr uint8_t kDirty = 1;
  static constexpr uint64_t kNoBlock = ~uint64_t{0};

  struct Entry {
    uint64_t block = kNoBlock;
    uint32_t pins = 0;
    bool reserved = false;
    bool used = false;   // since the hand passed
    bool dirty = false;  // as in dirty_
  };

  void Unpin(Slot slot);
  void FreeIfUnused(Slot slot);

  std::vector<Entry> slots_;
  std::vector<Slot> free_;
  std::unordered_map<uint64_t, Slot> by_block_;
  RunMap dirty_;
  Slot hand_ = 0;
  uint64_t evictions_ = 0;
};

}  // namespace gabion::block
