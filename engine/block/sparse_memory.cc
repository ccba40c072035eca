#include "engine/block/sparse_memory.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/align.h"
#include "engine/base/check.h"
#include "engine/base/status_macros.h"

namespace gabion::block {
namespace {

// States of chunks.
constexpr uint8_t kNone = 0;
constexpr uint8_t kZeroed = 1;
constexpr uint8_t kFilled = 2;

Limits LimitsOf(const SparseMemoryOptions& options) {
  Limits limits;
  limits.size = options.size;
  limits.writable = true;
  limits.fast_zero = true;
  return limits;
}

}  // namespace

SparseMemory::SparseMemory(const SparseMemoryOptions& options)
    : Node(LimitsOf(options)),
      chunk_(options.chunk_bytes),
      most_chunks_(options.limit.value / options.chunk_bytes) {
  CHECK(IsPowerOfTwo(chunk_));
}

SparseMemory::Span SparseMemory::Touched(ByteRange range) const {
  return {range.offset.value / chunk_, (range.end().value + chunk_ - 1) / chunk_};
}

SparseMemory::Span SparseMemory::Covered(ByteRange range) const {
  const uint64_t begin = (range.offset.value + chunk_ - 1) / chunk_;
  const bool to_end = range.end().value == limits().size.value;
  const uint64_t end = to_end ? Touched(range).end : range.end().value / chunk_;
  return {begin, std::max(begin, end)};
}

absl::Status SparseMemory::Take(Span span) {
  uint64_t missing = 0;
  for (uint64_t at = span.begin; at < span.end;) {
    const RunMap::Run run = states_.Find(at);
    const uint64_t end = std::min(run.end, span.end);
    if (run.state != kFilled) missing += end - at;
    at = end;
  }
  if (missing > most_chunks_ - chunks_.size()) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the scratch memory's ", most_chunks_ * chunk_, " bytes are used up"));
  }
  if (missing == 0) return absl::OkStatus();
  for (uint64_t at = span.begin; at < span.end; ++at) {
    std::unique_ptr<std::byte[]>& chunk = chunks_[at];
    if (chunk == nullptr) chunk = std::make_unique<std::byte[]>(chunk_);
  }
  states_.Set(span.begin, span.end, kFilled);
  return absl::OkStatus();
}

void SparseMemory::Free(Span span, uint8_t state) {
  for (uint64_t at = span.begin; at < span.end;) {
    const RunMap::Run run = states_.Find(at);
    const uint64_t end = std::min(run.end, span.end);
    for (; at < end && run.state == kFilled; ++at) chunks_.erase(at);
    at = end;
  }
  states_.Set(span.begin, span.end, state);
}

void SparseMemory::Wipe(ByteRange range) {
  for (uint64_t at = range.offset.value; at < range.end().value;) {
    const uint64_t end = std::min(range.end().value, (at / chunk_ + 1) * chunk_);
    const auto found = chunks_.find(at / chunk_);
    if (found != chunks_.end()) std::memset(found->second.get() + at % chunk_, 0, end - at);
    at = end;
  }
}

Task<absl::Status> SparseMemory::DoRead(ByteRange range, MutableBytes dst) {
  for (uint64_t at = range.offset.value; at < range.end().value;) {
    const uint64_t end = std::min(range.end().value, (at / chunk_ + 1) * chunk_);
    std::byte* const to = dst.data() + (at - range.offset.value);
    const auto found = chunks_.find(at / chunk_);
    if (found == chunks_.end()) {
      std::memset(to, 0, end - at);
    } else {
      std::memcpy(to, found->second.get() + at % chunk_, end - at);
    }
    at = end;
  }
  return absl::OkStatus();
}

Task<absl::Status> SparseMemory::DoWrite(ByteRange range, Bytes src, WriteOptions) {
  RETURN_IF_ERROR(Take(Touched(range)));
  for (uint64_t at = range.offset.value; at < range.end().value;) {
    const uint64_t end = std::min(range.end().value, (at / chunk_ + 1) * chunk_);
    std::byte* const to = chunks_.find(at / chunk_)->second.get() + at % chunk_;
    std::memcpy(to, src.data() + (at - range.offset.value), end - at);
    at = end;
  }
  return absl::OkStatus();
}

Task<absl::Status> SparseMemory::DoZero(ByteRange range, ZeroOptions options) {
  if (!options.may_unmap) {
    RETURN_IF_ERROR(Take(Touched(range)));
    Wipe(range);
    return absl::OkStatus();
  }
  const Span whole = Covered(range);
  if (whole.begin == whole.end) {
    Wipe(range);
    return absl::OkStatus();
  }
  const uint64_t head_end = whole.begin * chunk_;
  Wipe(Range(range.offset.value, head_end - range.offset.value));
  Free(whole, kZeroed);
  const uint64_t tail_begin = std::min(whole.end * chunk_, range.end().value);
  Wipe(Range(tail_begin, range.end().value - tail_begin));
  return absl::OkStatus();
}

Task<absl::Status> SparseMemory::DoDiscard(ByteRange range) {
  Free(Covered(range), kZeroed);
  return absl::OkStatus();
}

Task<absl::Status> SparseMemory::DoFlush() { return absl::OkStatus(); }

Task<absl::Status> SparseMemory::DoCache(ByteRange) { return absl::OkStatus(); }

Task<absl::StatusOr<ExtentList>> SparseMemory::DoBlockStatus(ByteRange range,
                                                             std::size_t max_extents) {
  ExtentList list;
  for (uint64_t at = range.offset.value; at < range.end().value && list.size() < max_extents;) {
    const RunMap::Run run = states_.Find(at / chunk_);
    // The last run has no end; others may end behind the disk's.
    const uint64_t last_chunk = Touched(range).end;
    const uint64_t end = run.end >= last_chunk ? range.end().value : run.end * chunk_;
    Extent extent{.range = Range(at, end - at), .kind = ExtentKind::kUnallocated, .layer = 0};
    if (run.state != kNone) {
      extent.kind = run.state == kFilled ? ExtentKind::kData : ExtentKind::kZero;
      extent.layer = 1;
    }
    AppendExtent(list, extent);
    at = end;
  }
  return absl::StatusOr<ExtentList>(std::move(list));
}

Task<absl::Status> SparseMemory::DoResize(ByteCount size) {
  if (size < limits().size) {
    const Span lost{(size.value + chunk_ - 1) / chunk_,
                    Touched(ByteRange{ByteOffset{}, limits().size}).end};
    Free(lost, kNone);
    Wipe(Range(size.value, lost.begin * chunk_ - size.value));
  }
  mutable_limits().size = size;
  return absl::OkStatus();
}

Task<absl::Status> SparseMemory::DoClose() {
  chunks_.clear();
  states_ = RunMap();
  return absl::OkStatus();
}

}  // namespace gabion::block
