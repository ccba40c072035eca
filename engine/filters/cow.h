// Keeps changes apart from the disk that they are made to.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "engine/block/node.h"
#include "engine/filters/copying/cow_state.h"
#include "engine/filters/filter.h"

namespace gabion::filters {

struct CowOptions {
  uint32_t block_size = 65536;  // bytes that are kept at once; a power of two, 512 to 1 MiB
  friend bool operator==(const CowOptions&, const CowOptions&) = default;
};

// Writes, zeros and discards change `scratch`, at the same places, and never the child, of which
// nothing but reads, status and Cache() is asked. A block that is written in part is completed from
// the child. Blocks that are zeroed or discarded take no space. Unless the state is `kept`, what is
// in the scratch node is discarded with it: Flush() and durable writes promise nothing and cost
// nothing. If it is, the scratch node decides about all of that, is told of zeros, too, and keeps
// what was flushed.
//
// Filters made one after another with the same state and scratch show the same disk; the state of
// one that has requests in flight is used by no other. A scratch node that is full fails writes
// with its own error.
//
// Status: what was written is kData of layer 1, what was zeroed is kZero of layer 1, the rest is
// the child's; of a scratch node that is kept, what it says itself. OriginOf() what was written is
// nothing. Limits: writable if the scratch node is, whether the child is or not; zeros are fast,
// and the child does not hide them, nor trims; preferred at least the block size, from `entry_id`;
// the size is the smaller of child and scratch. Resize() is kUnimplemented: to grow, the scratch
// node and the child are resized, then Refresh(). Statistics: bytes_written, and the blocks that
// are written or zeroed.
//
// REQUIRES: the alignment of both nodes is 1; `scratch` is empty at first, unless the state is
// kept, and then does zeros of whole blocks without writing them.
std::unique_ptr<Filter> NewCow(block::Node& child, Environment environment,
                               const std::string& entry_id, block::Node& scratch, CowState& state);

}  // namespace gabion::filters
