// A disk in memory that takes memory only for what was written to it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <unordered_map>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/base/units.h"
#include "engine/block/node.h"
#include "engine/block/run_map.h"
#include "engine/runtime/task.h"

namespace gabion::block {

struct SparseMemoryOptions {
  ByteCount size;                // of the disk
  ByteCount limit;               // of the memory that its content takes
  uint64_t chunk_bytes = 65536;  // a power of two; memory is taken and given back in chunks
};

// Scratch space: what is in it is gone with it. A write takes memory for each chunk that it touches
// and that has none; if they would not fit the limit it fails with kResourceExhausted as a whole.
// Zero() and Discard() of whole chunks give memory back; Zero() without may_unmap takes it.
//
// Status, by chunk: kData with memory, kZero once zeroed or discarded, else kUnallocated; the layer
// is 1. Every call is done at once. The limit counts content; the tables take about 100 bytes for
// each chunk more.
//
// Owned by whoever made it; used on one shard.
class SparseMemory final : public Node {
 public:
  // REQUIRES: size + chunk_bytes does not overflow.
  explicit SparseMemory(const SparseMemoryOptions& options);

  // Memory in use for content.
  ByteCount used() const { return ByteCount{chunks_.size() * chunk_}; }

 private:
  Task<absl::Status> DoRead(ByteRange range, MutableBytes dst) override;
  Task<absl::Status> DoWrite(ByteRange range, Bytes src, WriteOptions options) override;
  Task<absl::Status> DoZero(ByteRange range, ZeroOptions options) override;
  Task<absl::Status> DoDiscard(ByteRange range) override;
  Task<absl::Status> DoFlush() override;
  Task<absl::Status> DoCache(ByteRange range) override;
  Task<absl::StatusOr<ExtentList>> DoBlockStatus(ByteRange range, std::size_t max_extents) override;
  Task<absl::Status> DoResize(ByteCount size) override;
  Task<absl::Status> DoClose() override;

  // The chunks that `range` touches, and those that it covers; the disk's end counts as a chunk's.
  struct Span {
    uint64_t begin = 0;
    uint64_t end = 0;
  };
  Span Touched(ByteRange range) const;
  Span Covered(ByteRange range) const;

  // Gives each chunk of `span` memory, zeroed where it had none; or changes nothing.
  absl::Status Take(Span span);
  // Takes the memory of `span` away.
  void Free(Span span, uint8_t state);
  // Zeros those bytes of `range` that have memory.
  void Wipe(ByteRange range);

  const uint64_t chunk_;
  const uint64_t most_chunks_;
  std::unordered_map<uint64_t, std::unique_ptr<std::byte[]>> chunks_;
  RunMap states_;
};

}  // namespace gabion::block
