// Makes any byte range, from any buffer, out of a child that takes whole units only.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "engine/base/units.h"
#include "engine/block/filter_node.h"
#include "engine/block/range_lock.h"
#include "engine/block/staging.h"
#include "engine/runtime/ready_queue.h"
#include "engine/runtime/task.h"

namespace gabion::block {

// Above a child with limits().alignment or limits().memory_alignment above 1; its own are 1, and it
// prefers the child's alignment.
//
// (1) Units that a write covers in part are read, changed and written back under an exclusive lock;
//     writes, zeros and discards of whole units hold a shared lock, so that no read-modify-write
//     brings back what they replaced. Reads need no lock: a write-back never changes a byte that
//     its request does not cover.
// (2) Whole units in a suitable buffer go to the child in one piece, without a copy. Everything
//     else is copied through staging memory, of which a node never holds more than a fixed budget.
// (3) Zero() writes zeros to units that it covers in part; Discard() leaves them alone.
// (4) Block status is the child's, byte-exact.
//
// Owned by a graph; used on its shard. Borrows `child` and `ready`, which outlive it.
class AlignedNode final : public FilterNode {
 public:
  // REQUIRES: the child's alignment is at most 2 MiB.
  AlignedNode(Node& child, runtime::ReadyQueue& ready);

 private:
  // Which units a range covers: parts of one or two, and whole ones between them. The disk's last
  // unit may be short. `head` comes first; a range within one unit has no other part.
  struct Split {
    ByteRange outer;  // all units that the range touches
    ByteRange head;
    ByteRange middle;
    ByteRange tail;
  };

  Task<absl::Status> DoRead(ByteRange range, MutableBytes dst) override;
  Task<absl::Status> DoWrite(ByteRange range, Bytes src, WriteOptions options) override;
  Task<absl::Status> DoZero(ByteRange range, ZeroOptions options) override;
  Task<absl::Status> DoDiscard(ByteRange range) override;
  Task<absl::Status> DoCache(ByteRange range) override;
  Limits DeriveLimits(const Limits& child) const override;

  uint64_t Unit() const;
  Split SplitUnits(ByteRange range) const;
  // True if the child takes `range`, or a buffer at `address`, as it is.
  bool ChildTakes(ByteRange range) const;
  bool ChildTakes(const std::byte* address) const;
  // True if the middle of a request is worth a call of its own and its buffer is suitable.
  bool MiddleGoesDirect(const Split& split, ByteRange range, const std::byte* buffer) const;

  Task<absl::Status> ReadSplit(ByteRange range, MutableBytes dst);
  Task<absl::Status> ReadStaged(ByteRange range, MutableBytes dst);
  Task<absl::Status> WriteWhole(ByteRange range, Bytes src, WriteOptions options);
  Task<absl::Status> WriteSplit(ByteRange range, Bytes src, WriteOptions options);
  Task<absl::Status> WriteStaged(ByteRange range, Bytes src, WriteOptions options);
  Task<absl::Status> ZeroWhole(ByteRange range, ZeroOptions options);
  Task<absl::Status> ZeroSplit(ByteRange range, ZeroOptions options);
  // Zeros the part of one unit that `range` covers. `staged`: memory for the unit.
  Task<absl::Status> ZeroPart(ByteRange unit, ByteRange range, MutableBytes staged,
                              ZeroOptions options);
  // Reads those units of `piece` that `range` covers in part to their places in `staged`, which
  // stands for the piece.
  Task<absl::Status> ReadPartialUnits(ByteRange piece, ByteRange range, MutableBytes staged);

  StagingPool staging_;
  RangeLock lock_;
};

}  // namespace gabion::block
