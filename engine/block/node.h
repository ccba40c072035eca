// A node is a disk in memory: it maps byte ranges to bytes. Nodes form a tree; a node knows nothing
// above it.
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/base/units.h"
#include "engine/block/extent.h"
#include "engine/block/limits.h"
#include "engine/runtime/task.h"

namespace gabion::block {

struct WriteOptions {
  bool durable = false;  // FUA: on stable storage before the task is done
};

struct ZeroOptions {
  bool durable = false;
  bool may_unmap = true;   // false: keep or allocate the space (NBD_CMD_FLAG_NO_HOLE)
  bool fast_only = false;  // fail with kUnimplemented, content untouched, rather than write zeros
  // Of images: afterwards the topmost layer has all of it as its own (layer 1), also what read as
  // zeros before because no layer had it.
  bool own = false;
};

// The public calls check the contract once, for every node, and forward without a frame. Subclasses
// implement the Do... calls and may rely on it.
//
// Owned by the graph of its image or export; used on the shard of its owner only. All calls may run
// concurrently with each other except Resize() and Close(), which their caller runs alone. Buffers
// stay valid until the task is done.
//
// REQUIRES of every range: within [0, limits().size), and aligned as limits().alignment says (an
// end where the disk ended before it became longer is as good as one at its end: the request may
// have been under way); of every buffer: the length of its range, and an address aligned as
// limits().memory_alignment says. Empty ranges are allowed and do nothing. Errors: the most
// specific code, with the context of the node that knows it.
class Node {
 public:
  virtual ~Node() = default;
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  const Limits& limits() const { return limits_; }

  // Reads `range` into `dst`, which has the same length. On error the contents of `dst` are
  // unspecified.
  Task<absl::Status> Read(ByteRange range, MutableBytes dst);

  // Writes `src` to `range`. On error the range holds any mix of old and new sectors. REQUIRES:
  // limits().writable.
  Task<absl::Status> Write(ByteRange range, Bytes src, WriteOptions options);

  // Makes `range` read as zeros. REQUIRES: limits().writable.
  Task<absl::Status> Zero(ByteRange range, ZeroOptions options);

  // Gives space back where that is possible; afterwards the range reads as old content, zeros, or a
  // mix of both. REQUIRES: limits().writable.
  Task<absl::Status> Discard(ByteRange range);

  // Everything whose task was done before this call is on stable storage when this task is done.
  Task<absl::Status> Flush();

  // Asks that `range` will soon be read fast; a hint.
  Task<absl::Status> Cache(ByteRange range);

  // Status of a prefix of `range`: at least one byte, without gaps, byte-exact, at most
  // `max_extents` (>= 1) extents, clipped to `range`. The answer may stop early at any place;
  // callers ask on from there. REQUIRES: `range` is not empty; needs no alignment.
  Task<absl::StatusOr<ExtentList>> BlockStatus(ByteRange range, std::size_t max_extents);

  // Changes the size of the image below; kUnimplemented where the node cannot. Runs alone. New
  // bytes read as zeros.
  Task<absl::Status> Resize(ByteCount size);

  // Flushes and lets go of what it holds. Runs alone, last, once; the node only waits for its
  // destruction afterwards.
  Task<absl::Status> Close();

 protected:
  explicit Node(Limits limits) : limits_(std::move(limits)) {}

  // For subclasses whose limits change: growth, or a changed child. One whose size changes while
  // requests are under way calls RememberEnd() before.
  Limits& mutable_limits() { return limits_; }
  void RememberEnd();

 private:
  virtual Task<absl::Status> DoRead(ByteRange range, MutableBytes dst) = 0;
  virtual Task<absl::Status> DoWrite(ByteRange range, Bytes src, WriteOptions options) = 0;
  virtual Task<absl::Status> DoZero(ByteRange range, ZeroOptions options) = 0;
  virtual Task<absl::Status> DoDiscard(ByteRange range) = 0;
  virtual Task<absl::Status> DoFlush() = 0;
  virtual Task<absl::Status> DoCache(ByteRange range) = 0;
  virtual Task<absl::StatusOr<ExtentList>> DoBlockStatus(ByteRange range,
                                                         std::size_t max_extents) = 0;
  virtual Task<absl::Status> DoResize(ByteCount size);
  virtual Task<absl::Status> DoClose() = 0;

  void CheckRange(ByteRange range) const;

  Limits limits_;
  std::vector<ByteOffset> former_ends_;  // that are no multiples of the alignment
};

}  // namespace gabion::block
