#include "engine/block/node.h"

#include <algorithm>

#include "engine/base/align.h"
#include "engine/base/check.h"

namespace gabion::block {
namespace {

void CheckBuffer(ByteRange range, Bytes buffer, const Limits& limits) {
  CHECK_EQ(buffer.size(), range.length.value);
  CHECK(IsMultiple(reinterpret_cast<uintptr_t>(buffer.data()), limits.memory_alignment));
}

}  // namespace

void Node::CheckRange(ByteRange range) const {
  CHECK(FitsWithin(range, limits_.size));
  const bool ended_once =
      std::find(former_ends_.begin(), former_ends_.end(), range.end()) != former_ends_.end();
  const ByteCount end = ended_once ? ByteCount{range.end().value} : limits_.size;
  CHECK(IsAlignedWithin(range, limits_.alignment, end));
}

void Node::RememberEnd() {
  const ByteOffset end{limits_.size.value};
  if (!IsMultiple(end.value, limits_.alignment.value)) former_ends_.push_back(end);
}

Task<absl::Status> Node::Read(ByteRange range, MutableBytes dst) {
  if (range.empty()) return absl::OkStatus();
  CheckRange(range);
  CheckBuffer(range, dst, limits_);
  return DoRead(range, dst);
}

Task<absl::Status> Node::Write(ByteRange range, Bytes src, WriteOptions options) {
  CHECK(limits_.writable);
  if (range.empty()) return absl::OkStatus();
  CheckRange(range);
  CheckBuffer(range, src, limits_);
  return DoWrite(range, src, options);
}

Task<absl::Status> Node::Zero(ByteRange range, ZeroOptions options) {
  CHECK(limits_.writable);
  if (range.empty()) return absl::OkStatus();
  CheckRange(range);
  return DoZero(range, options);
}

Task<absl::Status> Node::Discard(ByteRange range) {
  CHECK(limits_.writable);
  if (range.empty()) return absl::OkStatus();
  CheckRange(range);
  return DoDiscard(range);
}

Task<absl::Status> Node::Flush() { return DoFlush(); }

Task<absl::Status> Node::Cache(ByteRange range) {
  if (range.empty()) return absl::OkStatus();
  CheckRange(range);
  return DoCache(range);
}

Task<absl::StatusOr<ExtentList>> Node::BlockStatus(ByteRange range, std::size_t max_extents) {
  CHECK(!range.empty());
  CHECK(FitsWithin(range, limits_.size));
  CHECK_GE(max_extents, 1u);
  return DoBlockStatus(range, max_extents);
}

Task<absl::Status> Node::Resize(ByteCount size) { return DoResize(size); }

Task<absl::Status> Node::Close() { return DoClose(); }

Task<absl::Status> Node::DoResize(ByteCount) {
  return absl::Status(absl::UnimplementedError("this disk cannot change its size"));
}

}  // namespace gabion::block
