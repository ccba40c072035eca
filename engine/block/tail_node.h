// What an export does when the size of its disk is not a multiple of its minimum block size (status
// rules, section 7).
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/base/units.h"
#include "engine/block/filter_node.h"
#include "engine/runtime/event.h"
#include "engine/runtime/ready_queue.h"
#include "engine/runtime/task.h"
#include "engine/runtime/turnstile.h"

namespace gabion::block {

// How the odd bytes at the end of a disk are exported. Two more policies need no node: EXACT, where
// the minimum is 1, and REFUSE, where there is no export.
enum class TailMode : uint8_t {
  kPadZero,   // round the size up; the padding reads as zeros and takes only zeros
  kPadGrow,   // round the size up; the first other write past the end makes the image longer
  kTruncate,  // round the size down
};

// The size that a disk of `size` bytes has above a tail node; a multiple of `granule`, a power of
// two. REQUIRES: size + granule does not overflow.
ByteCount TailSize(TailMode mode, ByteCount size, ByteCount granule);

// Rounds the size of its child to the export's granule, and deals with the bytes that one side has
// and the other has not. Stands between the export and its filters.
//
// Padding: limits().padding says how many of the last bytes of limits().size are padding. Block
// status of the padding is kUnallocated, which is true of it; but whoever merges must not ask for
// it, and take it as the identity of the merge, so that it adds no descriptor and changes none
// (rule S-27).
//
// A write with a byte that is not zero past the image's end fails as a whole with
// kResourceExhausted, which clients see as "no space", and nothing is written (rule S-26). Zeros
// there are dropped; a durable request still reaches stable storage.
//
// kPadGrow: the write that needs it waits for every request in flight through this node, grows the
// image once, and goes on; from then on there is no padding and everything is forwarded. If the
// image cannot grow, the write fails and nothing is written. Growing resizes the child, which must
// run alone: whoever shares the image below with others must not use this mode for both.
//
// Resize(size) sets the size of the image, from which the export's size follows.
//
// Owned by a graph; used on its shard. Borrows `child` and `ready`, which outlive it.
class TailNode final : public FilterNode {
 public:
  // REQUIRES: `granule` is a power of two; the child has no padding of its own; with kTruncate
  // `granule` is a multiple of the child's alignment (an AlignedNode below makes it so).
  TailNode(Node& child, TailMode mode, ByteCount granule, runtime::ReadyQueue& ready);

  std::optional<ByteRange> OriginOf(ByteRange& range) const override;

 private:
  // What of a request lies before the end of the image, and how many bytes lie behind it.
  struct Parts {
    ByteRange content;
    ByteCount padding;
  };

  Task<absl::Status> DoRead(ByteRange range, MutableBytes dst) override;
  Task<absl::Status> DoWrite(ByteRange range, Bytes src, WriteOptions options) override;
  Task<absl::Status> DoZero(ByteRange range, ZeroOptions options) override;
  Task<absl::Status> DoDiscard(ByteRange range) override;
  Task<absl::Status> DoFlush() override;
  Task<absl::Status> DoCache(ByteRange range) override;
  Task<absl::StatusOr<ExtentList>> DoBlockStatus(ByteRange range, std::size_t max_extents) override;
  Task<absl::Status> DoResize(ByteCount size) override;
  Limits DeriveLimits(const Limits& child) const override;

  Parts Divide(ByteRange range) const;
  // True while a write may still make the image longer, so that requests must be counted.
  bool MayGrow() const;

  // The calls as they are once they are counted, or need not be.
  Task<absl::Status> ReadNow(ByteRange range, MutableBytes dst);
  // REQUIRES: the part of `src` past the end of the image is zero.
  Task<absl::Status> WriteNow(ByteRange range, Bytes src, WriteOptions options);
  Task<absl::Status> ZeroNow(ByteRange range, ZeroOptions options);
  Task<absl::Status> DiscardNow(ByteRange range);
  Task<absl::Status> CacheNow(ByteRange range);
  Task<absl::StatusOr<ExtentList>> BlockStatusNow(ByteRange range, std::size_t max_extents);

  // The same while the image may grow: pass the turnstile first.
  Task<absl::Status> CountedRead(ByteRange range, MutableBytes dst);
  Task<absl::Status> CountedWrite(ByteRange range, Bytes src, WriteOptions options);
  Task<absl::Status> CountedZero(ByteRange range, ZeroOptions options);
  Task<absl::Status> CountedDiscard(ByteRange range);
  Task<absl::Status> CountedFlush();
  Task<absl::Status> CountedCache(ByteRange range);
  Task<absl::StatusOr<ExtentList>> CountedBlockStatus(ByteRange range, std::size_t max_extents);
  // Makes the image as long as the export, unless it is already.
  Task<absl::Status> Grow();

  const TailMode mode_;
  const ByteCount granule_;
  runtime::Turnstile turnstile_;
  bool growing_ = false;
  runtime::Signal growth_ended_;
};

}  // namespace gabion::block
