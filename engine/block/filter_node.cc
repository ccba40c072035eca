#include "engine/block/filter_node.h"

#include <utility>

#include "engine/base/status_macros.h"

namespace gabion::block {

void FilterNode::Refresh() {
  Limits next = DeriveLimits(child_->limits());
  if (next.size != limits().size) RememberEnd();
  mutable_limits() = std::move(next);
}

Task<absl::Status> FilterNode::DoRead(ByteRange range, MutableBytes dst) {
  return child_->Read(range, dst);
}

Task<absl::Status> FilterNode::DoWrite(ByteRange range, Bytes src, WriteOptions options) {
  return child_->Write(range, src, options);
}

Task<absl::Status> FilterNode::DoZero(ByteRange range, ZeroOptions options) {
  return child_->Zero(range, options);
}

Task<absl::Status> FilterNode::DoDiscard(ByteRange range) { return child_->Discard(range); }

Task<absl::Status> FilterNode::DoFlush() { return child_->Flush(); }

Task<absl::Status> FilterNode::DoCache(ByteRange range) { return child_->Cache(range); }

Task<absl::StatusOr<ExtentList>> FilterNode::DoBlockStatus(ByteRange range,
                                                           std::size_t max_extents) {
  return child_->BlockStatus(range, max_extents);
}

Task<absl::Status> FilterNode::DoResize(ByteCount size) {
  absl::Status status = co_await child_->Resize(size);
  Refresh();
  co_return status;
}

Task<absl::Status> FilterNode::DoClose() { return child_->Flush(); }

}  // namespace gabion::block
