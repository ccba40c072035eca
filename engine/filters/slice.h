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

// Byte n of the slice is byte range.offset + n of the child. Extents are the child's, cut and
// shifted: kind, layer and host offset stay. Needs no alignment of its own: where the range does
// not begin at a multiple of the child's alignment, REQUIRES that this is 1 (an AlignedNode below).
// With `to_end` the slice grows with the child; else its size is fixed, and Resize() is
// kUnimplemented. REQUIRES: the range lies within the child.
std::unique_ptr<Filter> NewSlice(block::Node& child, Environment environment, ByteRange range,
                                 bool to_end);

// Where partition `number` (1 and up) lies on `disk`, by its GPT (UEFI 2.10, section 5.3: the
// primary one, or the backup where that is damaged) or MBR with its extended partitions (logical
// ones from 5 on). Tables of 512- and 4096-byte sectors are read. kNotFound: no table or no such
// partition; kDataLoss: the table contradicts itself, overlaps the end of the disk, or loops.
// Reads little, whatever the tables say. REQUIRES: the disk's alignment is 1.
Task<absl::StatusOr<ByteRange>> FindPartition(block::Node& disk, uint32_t number);

}  // namespace gabion::filters
