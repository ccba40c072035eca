#include "engine/block/node.h"

#include "engine/base/align.h"
#include "engine/base/check.h"

namespace gabion::block {
namespace {

void CheckRange(ByteRange range, const Limits& limits) {
  CHECK(FitsWithin(range, limits.size));
  CHECK(IsAlignedWithin(range, limits.alignment, limits.size));
}

void CheckBuffer(ByteRange range, Bytes buffer, const Limits& limits) {
  CHECK_EQ(buffer.size(), range.length.value);
  CHECK(IsMultiple(reinterpret_cast<uintptr_t>(buffer.data()), limits.memory_alignment));
}

}  // namespace

Task<absl::Status> Node::Read(ByteRange range, MutableBytes dst) {
  if (range.empty()) return absl::OkStatus();
  CheckRange(range, limits_);
  CheckBuffer(range, dst, limits_);
  return DoRead(range, dst);
}

Task<absl::Status> Node::Write(ByteRange range, Bytes src, WriteOptions options) {
  CHECK(limits_.writable);
  if (range.empty()) return absl::OkStatus();
  CheckRange(range, limits_);
  CheckBuffer(range, src, limits_);
  return DoWrite(range, src, options);
}

Task<absl::Status> Node::Zero(ByteRange range, ZeroOptions options) {
  CHECK(limits_.writable);
  if (range.empty()) return absl::OkStatus();
  CheckRange(range, limits_);
  return DoZero(range, options);
}

Task<absl::Status> Node::Discard(ByteRange range) {
  CHECK(limits_.writable);
  if (range.empty()) return absl::OkStatus();
  CheckRange(range, limits_);
  return DoDiscard(range);
}

Task<absl::Status> Node::Flush() { return DoFlush(); }

Task<absl::Status> Node::Cache(ByteRange range) {
  if (range.empty()) return absl::OkStatus();
  CheckRange(range, limits_);
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
