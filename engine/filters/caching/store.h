// The blocks that a cache holds: where their bytes are, and how they get there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "engine/base/align.h"
#include "engine/base/units.h"
#include "engine/block/node.h"
#include "engine/block/range_lock.h"
#include "engine/block/slot_table.h"
#include "engine/block/staging.h"
#include "engine/runtime/ready_queue.h"
#include "engine/runtime/task.h"

namespace gabion::filters::caching {

// What caches made one after another over one disk have in common. Owned by whoever made it,
// outlives its stores; used on their shard.
struct Content {
  Content(runtime::ReadyQueue& ready, uint32_t block_size, block::SlotTable::Slot slots);

  const uint64_t block_size;
  block::SlotTable table;
  block::RangeLock lock;  // of ranges of whole blocks
  block::StagingPool staging;
  uint64_t hits = 0;
  uint64_t misses = 0;
  uint64_t written_back_bytes = 0;
};

// (1) Who changes a block's content, in its slot or in the child, holds an exclusive lock on the
//     block; who reads it, or brings it from one to the other, a shared one.
// (2) So under a shared lock a block may come into the table, clean, leave it while clean, or
//     become clean; its content is the same all the time.
// (3) A slot is pinned while somebody waits for its bytes: it is not given to another block then.
// (4) Nobody waits for a lock with another one, or staging memory, in hand.
// (5) The slot of the disk's last block, which may be short, is filled up with zeros: should the
//     disk grow, that is how it goes on.
//
// Where the scratch node fails, the blocks that are clean are done without. Calls on ranges need
// the lock that (1) says, which their caller holds.
//
// Owned by a cache; used on its shard. Borrows everything it is given.
class Store {
 public:
  using Slot = block::SlotTable::Slot;

  Store(block::Node& child, block::Node& scratch, Content& content)
      : child_(child),
        scratch_(scratch),
        content_(content),
        table_(content.table),
        block_(content.block_size) {}

  // co_await store.Lock(range, mode) -> RangeLock::Guard on the blocks around `range`.
  auto Lock(ByteRange range, block::RangeLockMode mode) {
    return content_.lock.Acquire(BlocksAround(range), mode);
  }

  // Reads `range`; with `keep` the blocks that were missing come into the cache.
  Task<absl::Status> Read(ByteRange range, MutableBytes dst, bool keep);
  // Brings missing blocks of `range` into the cache. REQUIRES: `range` is whole blocks, and not
  // longer than kLongestPiece.
  Task<absl::Status> Fetch(ByteRange range);

  // Writes to the child, and to the slots of blocks that are here.
  Task<absl::Status> WriteThrough(ByteRange range, Bytes src, block::WriteOptions options);
  // Writes to slots, and makes their blocks dirty; to the child where there is no room.
  Task<absl::Status> WriteHere(ByteRange range, Bytes src);
  // Zeros in the child; blocks as a whole leave the cache, dirty ones too.
  Task<absl::Status> Zero(ByteRange range, block::ZeroOptions options);
  Task<absl::Status> Discard(ByteRange range);

  // The bytes of a block that is in a slot, from there.
  Task<absl::Status> ReadSlot(Slot slot, ByteRange piece, MutableBytes dst) {
    return scratch_.Read(InSlot(slot, piece), dst);
  }

  // Blocks and slots as bytes.
  ByteRange BytesOf(uint64_t block, uint64_t count = 1) const {
    return Intersect(Range(block * block_, count * block_),
                     ByteRange{ByteOffset{}, child_.limits().size});
  }
  ByteRange BlocksAround(ByteRange range) const {
    return AlignOutward(range, ByteCount{block_}, child_.limits().size);
  }
  uint64_t BlockOf(ByteRange range) const { return range.offset.value / block_; }

  block::Node& child() { return child_; }
  Content& content() { return content_; }

  // Of what is moved between slots and the child at once; a multiple of the block size.
  static constexpr uint64_t kLongestPiece = kMiB;

 private:
  bool IsWhole(ByteRange piece) const { return BlocksAround(piece) == piece; }
  // Where the bytes of `piece`, which lies in one block, are in `slot`.
  ByteRange InSlot(Slot slot, ByteRange piece) const {
    return Range(slot * block_ + piece.offset.value % block_, piece.length.value);
  }
  // The part of `range` in its first block.
  ByteRange FirstPart(ByteRange range) const { return Intersect(BytesOf(BlockOf(range)), range); }
  // The part of `range` before the first block that is in a slot; at least the first part.
  ByteRange MissingPart(ByteRange range) const;
  // True if a block that `range` touches is dirty.
  bool HoldsDirty(ByteRange range) const;
  // Those that `range` touches.
  std::vector<uint64_t> BlocksHere(ByteRange range) const;
  void DropClean(ByteRange range);

  Task<absl::Status> ReadHit(Slot slot, ByteRange piece, MutableBytes dst);
  Task<absl::Status> ReadMiss(ByteRange run, MutableBytes dst);
  Task<absl::Status> ReadPart(ByteRange part, MutableBytes dst);
  // Puts the bytes of a whole block into a slot, clean, if there is room.
  Task<void> Keep(uint64_t block, Bytes bytes);
  Task<void> KeepAll(ByteRange range, Bytes bytes);
  Task<absl::Status> FillSlot(Slot slot, Bytes bytes);

  Task<absl::Status> WriteThroughHit(Slot slot, ByteRange piece, Bytes src);
  Task<absl::Status> WriteHit(Slot slot, ByteRange piece, Bytes src);
  Task<absl::Status> WriteMiss(Slot slot, ByteRange piece, Bytes src);
  Task<absl::Status> FillDirty(Slot slot, ByteRange whole, Bytes bytes);
  Task<absl::Status> ZeroHit(Slot slot, ByteRange piece);

  block::Node& child_;
  block::Node& scratch_;
  Content& content_;
  block::SlotTable& table_;
  const uint64_t block_;
};

}  // namespace gabion::filters::caching
