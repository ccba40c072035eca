// What a cow filter knows of its scratch node.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "engine/base/units.h"
#include "engine/block/node.h"
#include "engine/block/run_map.h"
#include "engine/runtime/ready_queue.h"
#include "engine/runtime/task.h"

namespace gabion::filters {

// Which blocks of a scratch node hold what was written. Belongs to one scratch node and one disk:
// where what is below shows other bytes, both begin anew. Takes about 70 bytes of memory for each
// run of blocks. Owned by whoever made it, outlives its filters; used on their shard.
struct CowState {
  // States of blocks.
  static constexpr uint8_t kBelow = 0;    // the disk's below
  static constexpr uint8_t kZeroed = 1;   // zeros, of which the scratch node knows nothing
  static constexpr uint8_t kWritten = 2;  // the scratch node's

  static constexpr uint64_t kSmallestBlock = 512;
  static constexpr uint64_t kLargestBlock = 2 * kMiB;
  // About 300 MiB of memory. Where there are as many, nothing is changed any more.
  static constexpr std::size_t kMostRuns = std::size_t{4} * 1024 * 1024;

  // REQUIRES: the block size is a power of two from the smallest to the largest one.
  CowState(uint64_t block_bytes, bool keeps);

  const uint64_t block_size;  // bytes
  // The scratch node keeps what is in it, and says by its status what that is: layer 1. There are
  // no kZeroed blocks then.
  const bool kept;
  block::RunMap blocks;
  uint64_t bytes_written = 0;
};

// Asks a scratch node that keeps what is in it which blocks of `range` those are, and puts them
// into kWritten. kDataLoss: it holds parts of blocks; kResourceExhausted: it is in too many pieces.
// Takes turns with others. REQUIRES: `range` begins at a block and ends at one, or at the end of
// the scratch node.
Task<absl::Status> LearnBlocks(block::Node& scratch, ByteRange range, CowState& state,
                               runtime::ReadyQueue& ready);

// The state of a scratch node that has kept what is in it. Errors of LearnBlocks().
Task<absl::StatusOr<std::unique_ptr<CowState>>> LoadCowState(block::Node& scratch,
                                                             uint64_t block_bytes,
                                                             runtime::ReadyQueue& ready);

}  // namespace gabion::filters
