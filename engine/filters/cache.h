// Keeps blocks of a disk where they are faster to reach.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "engine/block/node.h"
#include "engine/filters/filter.h"
#include "engine/runtime/ready_queue.h"

namespace gabion::filters {

struct CacheOptions {
  enum class Mode : uint8_t {
    kWritethrough,  // a write is done when the child has it
    kWriteback,     // a write is done when the cache has it; Flush() brings it to the child
  };
  Mode mode = Mode::kWritethrough;
  uint32_t block_size = 65536;  // a power of two, 4 KiB to 1 MiB
  uint64_t size = 64 * kMiB;    // bytes of blocks, at least one block
  bool cache_on_read = true;    // blocks that are read are kept, too
  uint32_t dirty_high_percent =
      75;                           // of the size: more than that is written back in the background
  uint32_t dirty_low_percent = 50;  // until so much is left; not above the high one
  friend bool operator==(const CacheOptions&, const CacheOptions&) = default;
};

// The bytes that a cache needs on its scratch node: the size in whole blocks.
ByteCount CacheScratchSize(const CacheOptions& options);

// Which blocks a cache holds, and which of them the child has not yet. Belongs to one scratch node
// and one disk: where what is below shows other bytes, or the disk may have been written to past
// the cache, as while its entry was bypassed, both begin anew. Takes about 100 bytes of memory for
// each block. Owned by whoever made it, outlives its filters; used on their shard.
class CacheState {
 public:
  virtual ~CacheState() = default;

 protected:
  CacheState() = default;
};
std::unique_ptr<CacheState> NewCacheState(runtime::ReadyQueue& ready, const CacheOptions& options);

// What the child does not have yet.
ByteCount UnwrittenBytes(const CacheState& state);

// A write cache as NBD knows it. What Flush() or a durable write has called done is on the child's
// stable storage, whatever becomes of the cache; everything else is lost with the daemon.
//
// Flush() writes all dirty blocks back and then flushes the child. A block that cannot be written
// back stays dirty, and each Flush() fails with the error until it can. A durable write goes to
// the child as one, and so do zeros and discards. Where the scratch node fails, the cache does
// without it, unless it is the only one that has the bytes. Blocks go by the CLOCK rule, dirty ones
// only once they are written back; while there is no room, requests go to the child.
//
// Other ways to the child are not seen: no other export may write to the image.
//
// Status: dirty blocks are kData of layer 1, the rest is the child's. Limits: the child's;
// preferred at least the block size, from `entry_id`. Cache() reads into the cache, with
// `cache_on_read`. Statistics: hits and misses of blocks by reads, dirty_bytes, written_back_bytes,
// evictions.
//
// Filters made one after another with the same state and scratch show the same disk: the one that
// TakeOver() was called on last, or else the first, writes back. Settle() writes everything back,
// in that one; what cannot be is lost, and the log says so. A filter with dirty blocks that is
// taken away while clients are connected must have none before others serve them: set kWritethrough
// with Configure(), Flush(), and exchange the filters only if that was well.
//
// Configure() changes all but `block_size` and `size`.
//
// REQUIRES: the alignment of both nodes is 1; `scratch` is writable and has CacheScratchSize();
// `state` was made with the same sizes.
std::unique_ptr<LiveFilter<CacheOptions>> NewCache(block::Node& child, Environment environment,
                                                   const std::string& entry_id,
                                                   block::Node& scratch, CacheState& state,
                                                   const CacheOptions& options);

}  // namespace gabion::filters
