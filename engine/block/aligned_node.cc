#include "engine/block/aligned_node.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "engine/base/align.h"
#include "engine/base/check.h"
#include "engine/base/status_macros.h"
#include "engine/block/zeros.h"

namespace gabion::block {
namespace {

constexpr uint64_t kLargestUnit = 2 * kMiB;
constexpr uint64_t kStagingBudget = 16 * kMiB;  // at least two units for each of four requests
constexpr uint64_t kStagedPiece = 256 * kKiB;   // larger requests are copied piece by piece
// A middle part shorter than this is cheaper to copy than to send as a call of its own.
constexpr uint64_t kShortestDirect = 64 * kKiB;
constexpr std::size_t kPage = 4096;

Limits LimitsAbove(const Limits& child) {
  Limits limits = child;
  if (child.alignment > child.preferred) {
    limits.preferred = child.alignment;
    limits.preferred_from = child.alignment_from;
  }
  if (child.alignment > child.emulated_alignment) {
    limits.emulated_alignment = child.alignment;
    limits.emulated_from = child.alignment_from;
  }
  limits.alignment = ByteCount{1};
  limits.alignment_from.clear();
  limits.memory_alignment = 1;
  return limits;
}

const absl::Status& FirstError(const absl::Status& a, const absl::Status& b) {
  return a.ok() ? b : a;
}

// The bytes of `part` in a buffer that stands for `range`, which holds it.
MutableBytes PartOf(MutableBytes buffer, ByteRange range, ByteRange part) {
  return buffer.subspan((part.offset - range.offset).value, part.length.value);
}
Bytes PartOf(Bytes buffer, ByteRange range, ByteRange part) {
  return buffer.subspan((part.offset - range.offset).value, part.length.value);
}

// Copies the bytes that both ranges have in common.
void CopyCommon(MutableBytes to, ByteRange to_range, Bytes from, ByteRange from_range) {
  const ByteRange common = Intersect(to_range, from_range);
  if (common.empty()) return;
  const Bytes source = PartOf(from, from_range, common);
  std::memcpy(PartOf(to, to_range, common).data(), source.data(), source.size());
}

}  // namespace

AlignedNode::AlignedNode(Node& child_node, runtime::ReadyQueue& ready)
    : FilterNode(child_node, LimitsAbove(child_node.limits())),
      staging_(ready, kStagingBudget,
               std::max<std::size_t>(kPage, child_node.limits().memory_alignment)),
      lock_(ready) {
  CHECK_LE(Unit(), kLargestUnit);
}

Limits AlignedNode::DeriveLimits(const Limits& child) const { return LimitsAbove(child); }

// At least the alignment of memory, so that every unit in a staging buffer starts on it.
uint64_t AlignedNode::Unit() const {
  const Limits& limits = child().limits();
  return std::max<uint64_t>(limits.alignment.value, limits.memory_alignment);
}

bool AlignedNode::ChildTakes(ByteRange range) const {
  return IsAlignedWithin(range, child().limits().alignment, child().limits().size);
}

bool AlignedNode::ChildTakes(const std::byte* address) const {
  return IsMultiple(reinterpret_cast<uintptr_t>(address), child().limits().memory_alignment);
}

AlignedNode::Split AlignedNode::SplitUnits(ByteRange range) const {
  const uint64_t unit = Unit();
  const ByteCount size = child().limits().size;
  Split split;
  split.outer = AlignOutward(range, ByteCount{unit}, size);
  uint64_t begin = split.outer.offset.value;
  uint64_t end = split.outer.end().value;
  if (range.offset.value > begin) {
    const uint64_t head_end = std::min(end, begin + unit);
    split.head = Range(begin, head_end - begin);
    begin = head_end;
  }
  if (begin < end && range.end().value < end) {
    const uint64_t tail_begin = RoundDown(range.end().value, unit);
    split.tail = Range(tail_begin, end - tail_begin);
    end = tail_begin;
  }
  split.middle = Range(begin, end - begin);
  return split;
}

bool AlignedNode::MiddleGoesDirect(const Split& split, ByteRange range,
                                   const std::byte* buffer) const {
  return split.middle.length.value >= kShortestDirect &&
         ChildTakes(buffer + (split.middle.offset - range.offset).value);
}

Task<absl::Status> AlignedNode::DoRead(ByteRange range, MutableBytes dst) {
  if (ChildTakes(range) && ChildTakes(dst.data())) return child().Read(range, dst);
  if (MiddleGoesDirect(SplitUnits(range), range, dst.data())) return ReadSplit(range, dst);
  return ReadStaged(range, dst);
}

Task<absl::Status> AlignedNode::ReadSplit(ByteRange range, MutableBytes dst) {
  const Split split = SplitUnits(range);
  const uint64_t head_room = split.head.empty() ? 0 : Unit();
  const uint64_t tail_room = split.tail.empty() ? 0 : Unit();
  Task<absl::Status> middle = child().Read(split.middle, PartOf(dst, range, split.middle));
  StagingPool::Buffer buffer = co_await staging_.Take(head_room + tail_room);
  const MutableBytes head_bytes = buffer.bytes().first(split.head.length.value);
  const MutableBytes tail_bytes = buffer.bytes().subspan(head_room, split.tail.length.value);
  Task<absl::Status> head = child().Read(split.head, head_bytes);
  Task<absl::Status> tail = child().Read(split.tail, tail_bytes);
  const absl::Status middle_status = co_await middle;
  const absl::Status head_status = co_await head;
  const absl::Status tail_status = co_await tail;
  CopyCommon(dst, range, head_bytes, split.head);
  CopyCommon(dst, range, tail_bytes, split.tail);
  co_return FirstError(FirstError(middle_status, head_status), tail_status);
}

Task<absl::Status> AlignedNode::ReadStaged(ByteRange range, MutableBytes dst) {
  const ByteRange outer = SplitUnits(range).outer;
  const uint64_t step = std::min(outer.length.value, std::max(Unit(), kStagedPiece));
  StagingPool::Buffer buffer = co_await staging_.Take(step);
  for (uint64_t at = outer.offset.value; at < outer.end().value; at += step) {
    const ByteRange piece = Range(at, std::min(step, outer.end().value - at));
    const MutableBytes staged = buffer.bytes().first(piece.length.value);
    CO_RETURN_IF_ERROR(co_await child().Read(piece, staged));
    CopyCommon(dst, range, staged, piece);
  }
  co_return absl::OkStatus();
}

Task<absl::Status> AlignedNode::DoWrite(ByteRange range, Bytes src, WriteOptions options) {
  if (ChildTakes(range) && ChildTakes(src.data())) return WriteWhole(range, src, options);
  if (MiddleGoesDirect(SplitUnits(range), range, src.data())) {
    return WriteSplit(range, src, options);
  }
  return WriteStaged(range, src, options);
}

Task<absl::Status> AlignedNode::WriteWhole(ByteRange range, Bytes src, WriteOptions options) {
  const RangeLock::Guard guard = co_await lock_.Acquire(range, RangeLockMode::kShared);
  absl::Status status = co_await child().Write(range, src, options);
  co_return status;
}

Task<absl::Status> AlignedNode::ReadPartialUnits(ByteRange piece, ByteRange range,
                                                 MutableBytes staged) {
  const ByteRange common = Intersect(piece, range);
  const Split split = SplitUnits(common);
  Task<absl::Status> head = absl::OkStatus();
  Task<absl::Status> tail = absl::OkStatus();
  if (!split.head.empty()) head = child().Read(split.head, PartOf(staged, piece, split.head));
  if (!split.tail.empty()) tail = child().Read(split.tail, PartOf(staged, piece, split.tail));
  const absl::Status head_status = co_await head;
  const absl::Status tail_status = co_await tail;
  co_return FirstError(head_status, tail_status);
}

Task<absl::Status> AlignedNode::WriteSplit(ByteRange range, Bytes src, WriteOptions options) {
  const Split split = SplitUnits(range);
  const RangeLock::Guard guard = co_await lock_.Acquire(split.outer, RangeLockMode::kExclusive);
  const uint64_t head_room = split.head.empty() ? 0 : Unit();
  const uint64_t tail_room = split.tail.empty() ? 0 : Unit();
  StagingPool::Buffer buffer = co_await staging_.Take(head_room + tail_room);
  const MutableBytes head_bytes = buffer.bytes().first(split.head.length.value);
  const MutableBytes tail_bytes = buffer.bytes().subspan(head_room, split.tail.length.value);
  {
    Task<absl::Status> head = child().Read(split.head, head_bytes);
    Task<absl::Status> tail = child().Read(split.tail, tail_bytes);
    const absl::Status head_status = co_await head;
    const absl::Status tail_status = co_await tail;
    CO_RETURN_IF_ERROR(FirstError(head_status, tail_status));
  }
  CopyCommon(head_bytes, split.head, src, range);
  CopyCommon(tail_bytes, split.tail, src, range);
  Task<absl::Status> head = child().Write(split.head, head_bytes, options);
  Task<absl::Status> middle =
      child().Write(split.middle, PartOf(src, range, split.middle), options);
  Task<absl::Status> tail = child().Write(split.tail, tail_bytes, options);
  const absl::Status head_status = co_await head;
  const absl::Status middle_status = co_await middle;
  const absl::Status tail_status = co_await tail;
  co_return FirstError(FirstError(head_status, middle_status), tail_status);
}

Task<absl::Status> AlignedNode::WriteStaged(ByteRange range, Bytes src, WriteOptions options) {
  const Split split = SplitUnits(range);
  const bool whole = split.head.empty() && split.tail.empty();
  const RangeLock::Guard guard = co_await lock_.Acquire(
      split.outer, whole ? RangeLockMode::kShared : RangeLockMode::kExclusive);
  const uint64_t end = split.outer.end().value;
  const uint64_t step = std::min(split.outer.length.value, std::max(Unit(), kStagedPiece));
  StagingPool::Buffer buffer = co_await staging_.Take(step);
  for (uint64_t at = split.outer.offset.value; at < end; at += step) {
    const ByteRange piece = Range(at, std::min(step, end - at));
    const MutableBytes staged = buffer.bytes().first(piece.length.value);
    CO_RETURN_IF_ERROR(co_await ReadPartialUnits(piece, range, staged));
    CopyCommon(staged, piece, src, range);
    CO_RETURN_IF_ERROR(co_await child().Write(piece, staged, options));
  }
  co_return absl::OkStatus();
}

Task<absl::Status> AlignedNode::DoZero(ByteRange range, ZeroOptions options) {
  return ChildTakes(range) ? ZeroWhole(range, options) : ZeroSplit(range, options);
}

Task<absl::Status> AlignedNode::ZeroWhole(ByteRange range, ZeroOptions options) {
  const RangeLock::Guard guard = co_await lock_.Acquire(range, RangeLockMode::kShared);
  absl::Status status = co_await child().Zero(range, options);
  co_return status;
}

Task<absl::Status> AlignedNode::ZeroSplit(ByteRange range, ZeroOptions options) {
  const Split split = SplitUnits(range);
  if (options.fast_only && split.middle.empty()) {
    co_return absl::UnimplementedError("zeroing part of a unit means to write it");
  }
  const RangeLock::Guard guard = co_await lock_.Acquire(split.outer, RangeLockMode::kExclusive);
  // The whole units first: should they not be fast, nothing has changed yet.
  CO_RETURN_IF_ERROR(co_await child().Zero(split.middle, options));
  options.fast_only = false;
  StagingPool::Buffer buffer = co_await staging_.Take(Unit());
  const ByteRange parts[] = {split.head, split.tail};
  for (const ByteRange& unit : parts) {
    if (unit.empty()) continue;
    const MutableBytes staged = buffer.bytes().first(unit.length.value);
    CO_RETURN_IF_ERROR(co_await ZeroPart(unit, range, staged, options));
  }
  co_return absl::OkStatus();
}

Task<absl::Status> AlignedNode::ZeroPart(ByteRange unit, ByteRange range, MutableBytes staged,
                                         ZeroOptions options) {
  CO_RETURN_IF_ERROR(co_await child().Read(unit, staged));
  const MutableBytes part = PartOf(staged, unit, Intersect(unit, range));
  std::memset(part.data(), 0, part.size());
  if (IsZero(staged)) {  // nothing else is left in the unit: it may become a hole
    absl::Status status = co_await child().Zero(unit, options);
    co_return status;
  }
  const WriteOptions write{.durable = options.durable};
  absl::Status status = co_await child().Write(unit, staged, write);
  co_return status;
}

Task<absl::Status> AlignedNode::DoDiscard(ByteRange range) {
  // Inwards, by the child's own alignment; the end of the disk counts as aligned.
  const Limits& limits = child().limits();
  const uint64_t first = RoundUp(range.offset.value, limits.alignment.value);
  const uint64_t end = range.end().value == limits.size.value
                           ? range.end().value
                           : RoundDown(range.end().value, limits.alignment.value);
  if (first >= end) co_return absl::OkStatus();
  const ByteRange whole = Range(first, end - first);
  const RangeLock::Guard guard = co_await lock_.Acquire(whole, RangeLockMode::kShared);
  const absl::Status status = co_await child().Discard(whole);
  co_return status;
}

Task<absl::Status> AlignedNode::DoCache(ByteRange range) {
  const Limits& limits = child().limits();
  return child().Cache(AlignOutward(range, limits.alignment, limits.size));
}

}  // namespace gabion::block
