#include "tests/support/memory_node.h"

#include <algorithm>
#include <utility>

#include "engine/base/check.h"

namespace gabion::test {
namespace {

block::Limits LimitsOf(const MemoryNodeOptions& options) {
  block::Limits limits;
  limits.size = ByteCount{options.size};
  limits.alignment = ByteCount{options.alignment};
  limits.memory_alignment = options.memory_alignment;
  limits.preferred = ByteCount{options.preferred};
  if (options.alignment > 1) limits.alignment_from = options.name;
  if (options.preferred > 0) limits.preferred_from = options.name;
  limits.layers = options.layers;
  limits.writable = options.writable;
  limits.fast_zero = options.fast_zero;
  return limits;
}

}  // namespace

MemoryNode::MemoryNode(const MemoryNodeOptions& options)
    : Node(LimitsOf(options)), options_(options), content_(options.size), status_(options.size) {}

void MemoryNode::Fill(ByteRange range, std::byte value, uint32_t layer) {
  const std::vector<std::byte> bytes(range.length.value, value);
  Put(range.offset.value, bytes, layer);
}

void MemoryNode::Put(uint64_t offset, Bytes bytes, uint32_t layer) {
  std::copy(bytes.begin(), bytes.end(), content_.begin() + offset);
  std::fill_n(status_.begin() + offset, bytes.size(), ByteStatus{block::ExtentKind::kData, layer});
}

void MemoryNode::SetStatus(ByteRange range, block::ExtentKind kind, uint32_t layer) {
  std::fill_n(status_.begin() + range.offset.value, range.length.value, ByteStatus{kind, layer});
  if (block::ReadsZero(kind)) {
    std::fill_n(content_.begin() + range.offset.value, range.length.value, std::byte{0});
  }
}

std::size_t MemoryNode::CountCalls(NodeCall call) const {
  return std::count_if(calls_.begin(), calls_.end(),
                       [call](const CallRecord& record) { return record.call == call; });
}

absl::Status MemoryNode::Arrive(NodeCall call, ByteRange range, bool durable) {
  calls_.push_back(CallRecord{call, range, durable});
  most_in_flight_ = std::max(most_in_flight_, ++in_flight_);
  return fault_ ? fault_(call, range) : absl::OkStatus();
}

Task<void> MemoryNode::Pause() {
  if (ready_ == nullptr) co_return;
  for (uint64_t turns = random_->Below(6); turns > 0; --turns) co_await ready_->Yield();
}

uint64_t MemoryNode::StepEnd(uint64_t from, uint64_t end) {
  if (ready_ == nullptr) return end;
  return std::min(end, from + std::max<uint64_t>(1, random_->Below(end - from + 1)));
}

Task<absl::Status> MemoryNode::DoRead(ByteRange range, MutableBytes dst) {
  absl::Status status = Arrive(NodeCall::kRead, range);
  co_await Pause();
  uint64_t at = range.offset.value;
  while (status.ok() && at < range.end().value) {
    const uint64_t end = StepEnd(at, range.end().value);
    std::copy(content_.begin() + at, content_.begin() + end,
              dst.begin() + (at - range.offset.value));
    at = end;
    co_await Pause();
  }
  Leave();
  co_return status;
}

Task<absl::Status> MemoryNode::DoWrite(ByteRange range, Bytes src, block::WriteOptions options) {
  absl::Status status = Arrive(NodeCall::kWrite, range, options.durable);
  co_await Pause();
  uint64_t at = range.offset.value;
  while (status.ok() && at < range.end().value) {
    const uint64_t end = StepEnd(at, range.end().value);
    Put(at, src.subspan(at - range.offset.value, end - at));
    at = end;
    co_await Pause();
  }
  Leave();
  co_return status;
}

Task<absl::Status> MemoryNode::DoZero(ByteRange range, block::ZeroOptions options) {
  absl::Status status = Arrive(NodeCall::kZero, range, options.durable);
  if (status.ok() && options.fast_only && !options_.fast_zero) {
    status = absl::UnimplementedError("no fast zeros");
  }
  co_await Pause();
  if (status.ok()) {
    SetStatus(range,
              options.may_unmap ? block::ExtentKind::kZero : block::ExtentKind::kZeroAllocated, 1);
  }
  co_await Pause();
  Leave();
  co_return status;
}

Task<absl::Status> MemoryNode::DoDiscard(ByteRange range) {
  absl::Status status = Arrive(NodeCall::kDiscard, range);
  co_await Pause();
  if (status.ok() && options_.discard_zeroes) SetStatus(range, block::ExtentKind::kZero, 1);
  Leave();
  co_return status;
}

Task<absl::Status> MemoryNode::DoFlush() {
  absl::Status status = Arrive(NodeCall::kFlush, Range(0, 0));
  co_await Pause();
  Leave();
  co_return status;
}

Task<absl::Status> MemoryNode::DoCache(ByteRange range) {
  absl::Status status = Arrive(NodeCall::kCache, range);
  co_await Pause();
  Leave();
  co_return status;
}

Task<absl::StatusOr<block::ExtentList>> MemoryNode::DoBlockStatus(ByteRange range,
                                                                  std::size_t max_extents) {
  absl::Status status = Arrive(NodeCall::kBlockStatus, range);
  co_await Pause();
  Leave();
  if (!status.ok()) co_return status;
  block::ExtentList list;
  uint64_t at = range.offset.value;
  while (at < range.end().value && list.size() < max_extents) {
    uint64_t end = at + 1;
    while (end < range.end().value && status_[end] == status_[at]) ++end;
    list.push_back(block::Extent{
        .range = Range(at, end - at), .kind = status_[at].kind, .layer = status_[at].layer});
    at = end;
  }
  co_return list;
}

Task<absl::Status> MemoryNode::DoResize(ByteCount size) {
  CHECK_EQ(in_flight_, 0);  // the contract: runs alone
  absl::Status status = Arrive(NodeCall::kResize, Range(0, size.value));
  if (status.ok() && !options_.resizable) status = absl::UnimplementedError("fixed size");
  co_await Pause();
  CHECK_EQ(in_flight_, 1);
  Leave();
  if (status.ok()) {
    content_.resize(size.value);
    status_.resize(size.value, ByteStatus{block::ExtentKind::kZero, 1});
    RememberEnd();
    mutable_limits().size = size;
  }
  co_return status;
}

Task<absl::Status> MemoryNode::DoClose() {
  absl::Status status = Arrive(NodeCall::kClose, Range(0, 0));
  Leave();
  co_return status;
}

}  // namespace gabion::test
