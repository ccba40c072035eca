// Shows a part of a disk.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "absl/status/statusor.h"
#include "engine/base/units.h"
#include "engine/block/node.h"
#include "engine/filters/filter.h"
#include "engine/runtime/task.h"

namespace gabion::filters {

// What an entry of a stack says: a partition, or a range.
struct SliceOptions {
  uint32_t partition = 0;  // 1 and up; 0: `range`
  ByteRange range;         // length 0: to the end of the disk
  friend bool operator==(const SliceOptions&, const SliceOptions&) = default;
};

// True if the slice can stand on a child with these limits, now and when the child has grown: it
// begins, and unless it is `to_end` ends, at multiples of the child's alignment. If not, it needs
// an AlignedNode below.
bool SliceFits(ByteRange range, bool to_end, const block::Limits& child);

// Byte n of the slice is byte range.offset + n of the child. Extents are the child's, cut and
// shifted: kind, layer and host offset stay. With `to_end` the slice reaches to the end of the
// child, whatever range.length says, grows with it, and Resize() resizes it; else its size is
// fixed, and Resize() is kUnimplemented. Alignment and preferred size stay the child's. REQUIRES:
// the range lies within the child; it begins at a multiple of the child's alignment, and ends at
// one or at the child's end (SliceFits() says so of any size); the child has no padding.
std::unique_ptr<Filter> NewSlice(block::Node& child, Environment environment, ByteRange range,
                                 bool to_end);

// Where partition `number` (1 and up) lies on `disk`, by its GPT (UEFI 2.10, section 5.3: the
// primary one, or the backup where that is damaged; sectors of 512 and 4096 bytes) or MBR with its
// extended partitions (logical ones from 5 on; sectors of 512 bytes, since an MBR does not say).
// kNotFound: no table or no such partition; kDataLoss: the table contradicts itself, reaches beyond
// the end of the disk, or loops. Reads little, whatever the tables say: see partitions/search.h.
// REQUIRES: the disk's alignment is 1, in memory, too.
Task<absl::StatusOr<ByteRange>> FindPartition(block::Node& disk, uint32_t number);

}  // namespace gabion::filters
