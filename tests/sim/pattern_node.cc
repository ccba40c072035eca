#include "tests/sim/pattern_node.h"

#include <algorithm>
#include <utility>

#include "engine/base/align.h"
#include "tests/sim/model.h"

namespace gabion::sim {
namespace {

block::Limits LimitsOf(uint64_t size) {
  block::Limits limits;
  limits.size = ByteCount{size};
  return limits;
}

absl::Status ReadOnly() { return absl::PermissionDeniedError("the image is read-only"); }

}  // namespace

PatternNode::PatternNode(SimWorld& world, const Content& content, uint64_t size,
                         std::vector<ByteRange> data)
    : Node(LimitsOf(size)), world_(world), content_(content), data_(std::move(data)) {}

Task<absl::Status> PatternNode::DoRead(ByteRange range, MutableBytes dst) {
  co_await world_.Turn();
  std::fill(dst.begin(), dst.end(), std::byte{0});
  for (const ByteRange& data : data_) {
    const ByteRange part = Intersect(data, range);
    if (part.empty()) continue;
    content_.Fill(Model::kBase, part.offset.value,
                  dst.subspan(part.offset.value - range.offset.value, part.length.value));
  }
  co_return absl::OkStatus();
}

Task<absl::Status> PatternNode::DoWrite(ByteRange, Bytes, block::WriteOptions) {
  return ReadOnly();
}
Task<absl::Status> PatternNode::DoZero(ByteRange, block::ZeroOptions) { return ReadOnly(); }
Task<absl::Status> PatternNode::DoDiscard(ByteRange) { return ReadOnly(); }
Task<absl::Status> PatternNode::DoFlush() { return absl::OkStatus(); }
Task<absl::Status> PatternNode::DoCache(ByteRange) { return absl::OkStatus(); }
Task<absl::Status> PatternNode::DoClose() { return absl::OkStatus(); }

Task<absl::StatusOr<block::ExtentList>> PatternNode::DoBlockStatus(ByteRange range,
                                                                   std::size_t max_extents) {
  co_await world_.Turn();
  block::ExtentList list;
  uint64_t at = range.offset.value;
  const auto append = [&](uint64_t end, block::ExtentKind kind) {
    if (end <= at || list.size() >= max_extents) return;
    list.push_back(block::Extent{.range = Range(at, end - at), .kind = kind, .layer = 1});
    at = end;
  };
  for (const ByteRange& data : data_) {
    const ByteRange part = Intersect(data, range);
    if (part.empty()) continue;
    append(part.offset.value, block::ExtentKind::kZero);
    append(part.end().value, block::ExtentKind::kData);
  }
  append(range.end().value, block::ExtentKind::kZero);
  co_return list;
}

}  // namespace gabion::sim
