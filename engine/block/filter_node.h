// The base of nodes with one child: forwards everything, so that a filter is only what it changes.
#pragma once

#include <cstddef>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/base/units.h"
#include "engine/block/node.h"

namespace gabion::block {

// Forwards every call to its child without a frame and mirrors the child's limits. A subclass
// overrides the calls that it changes.
//
// Owned by a graph, like every node; used on the graph's shard. Borrows `child`, which outlives it.
// Close() flushes and does not close the child: the owner of the nodes closes each, from the top.
class FilterNode : public Node {
 public:
  // Takes over what changed in the child's limits. Called by the graph, bottom up, while no request
  // is in flight, after the child was resized or replaced from outside; Resize() through this node
  // does it by itself. Nodes that have others inside refresh these first.
  virtual void Refresh();

  const Node& child() const { return *child_; }

  // Where the first bytes of `range`, as many as lie together, come from: a range of the child.
  // None if the node makes them up itself; then `range` is cut to those bytes. REQUIRES: `range` is
  // not empty and within the limits.
  virtual std::optional<ByteRange> OriginOf(ByteRange& range) const { return range; }

 protected:
  explicit FilterNode(Node& child) : FilterNode(child, child.limits()) {}

  // For filters with limits of their own: `limits` must be what DeriveLimits() makes of the
  // child's.
  FilterNode(Node& child, Limits limits) : Node(std::move(limits)), child_(&child) {}

  Node& child() { return *child_; }

  // Puts another child in place; the caller then calls Refresh().
  void set_child(Node& child) { child_ = &child; }

  Task<absl::Status> DoRead(ByteRange range, MutableBytes dst) override;
  Task<absl::Status> DoWrite(ByteRange range, Bytes src, WriteOptions options) override;
  Task<absl::Status> DoZero(ByteRange range, ZeroOptions options) override;
  Task<absl::Status> DoDiscard(ByteRange range) override;
  Task<absl::Status> DoFlush() override;
  Task<absl::Status> DoCache(ByteRange range) override;
  Task<absl::StatusOr<ExtentList>> DoBlockStatus(ByteRange range, std::size_t max_extents) override;
  Task<absl::Status> DoResize(ByteCount size) override;
  Task<absl::Status> DoClose() override;

 private:
  // The limits of this node above a child with the limits `child`.
  virtual Limits DeriveLimits(const Limits& child) const { return child; }

  Node* child_;
};

}  // namespace gabion::block
