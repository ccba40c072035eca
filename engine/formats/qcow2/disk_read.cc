// Reading a qcow2 image, and what it says of its status.
#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "engine/base/check.h"
#include "engine/base/status_macros.h"
#include "engine/block/extent_algebra.h"
#include "engine/formats/qcow2/disk.h"

namespace gabion::qcow2 {
namespace {

constexpr std::size_t kFewSegments = 4;

block::Extent Nothing(ByteRange range) {
  return {.range = range, .kind = block::ExtentKind::kUnallocated, .layer = 0};
}

// REQUIRES: the segment is not unallocated.
block::Extent OwnExtent(const Segment& segment) {
  block::Extent extent{.range = segment.guest};
  switch (segment.kind) {
    case SegmentKind::kZero:
      extent.kind = block::ExtentKind::kZero;
      break;
    case SegmentKind::kZeroAllocated:
      extent.kind = block::ExtentKind::kZeroAllocated;
      extent.host_offset = segment.host_offset;
      break;
    case SegmentKind::kCompressedData:
      extent.compressed = true;
      break;
    default:
      extent.host_offset = segment.host_offset;
      break;
  }
  return extent;
}

}  // namespace

Task<absl::Status> Disk::DoRead(ByteRange range, MutableBytes dst) {
  const Epochs::Pass pass = epochs_.Enter();
  const absl::StatusOr<Segment> found = co_await mapper_.Find(range);
  if (found.ok() && found->kind == SegmentKind::kData && found->guest.length == range.length) {
    const absl::Status status = co_await file_->Read(ByteOffset{found->host_offset}, dst);
    co_return status;
  }
  const absl::Status status = co_await ReadSegments(range, dst);
  co_return status;
}

Task<absl::Status> Disk::ReadSegments(ByteRange range, MutableBytes dst) {
  absl::InlinedVector<Task<absl::Status>, kFewSegments> reads;
  absl::Status status;
  uint64_t at = range.offset.value;
  while (at < range.end().value) {
    const ByteRange rest = Range(at, range.end().value - at);
    const absl::StatusOr<Segment> found = co_await mapper_.Find(rest);
    if (!found.ok()) {
      status = found.status();
      break;
    }
    const uint64_t length = found->guest.length.value;
    const MutableBytes part = dst.subspan(at - range.offset.value, length);
    switch (found->kind) {
      case SegmentKind::kData:
        reads.push_back(file_->Read(ByteOffset{found->host_offset}, part));
        break;
      case SegmentKind::kCompressedData:
        reads.push_back(inflater_.Read(found->entry, tables_.geometry.InCluster(at), part));
        break;
      case SegmentKind::kUnallocated:
        reads.push_back(ReadBacking(found->guest, part));
        break;
      case SegmentKind::kZero:
      case SegmentKind::kZeroAllocated:
        std::memset(part.data(), 0, part.size());
        break;
    }
    at += length;
  }
  for (Task<absl::Status>& read : reads) {
    const absl::Status done = co_await read;
    status.Update(done);
  }
  co_return status;
}

// What lies past the end of the backing image is zeros, whatever lies below that one.
Task<absl::Status> Disk::ReadBacking(ByteRange range, MutableBytes dst) {
  const ByteCount size =
      options_.backing == nullptr ? ByteCount{0} : options_.backing->limits().size;
  const ByteRange inside = Intersect(range, ByteRange{ByteOffset{0}, size});
  const std::size_t covered = inside.length.value;
  if (covered < dst.size()) std::memset(dst.data() + covered, 0, dst.size() - covered);
  if (covered == 0) return absl::OkStatus();
  return options_.backing->Read(inside, dst.first(covered));
}

bool Disk::IsZeroByTables(SegmentKind kind, ByteRange range) const {
  switch (kind) {
    case SegmentKind::kZero:
    case SegmentKind::kZeroAllocated:
      return true;
    case SegmentKind::kUnallocated:
      return options_.backing == nullptr ||
             range.offset.value >= options_.backing->limits().size.value;
    default:
      return false;
  }
}

Task<absl::Status> Disk::DoCache(ByteRange range) {
  const Epochs::Pass pass = epochs_.Enter();
  uint64_t at = range.offset.value;
  while (at < range.end().value) {
    const ByteRange rest = Range(at, range.end().value - at);
    CO_ASSIGN_OR_RETURN(const Segment found, co_await mapper_.Find(rest));
    if (found.kind == SegmentKind::kData) {
      const ByteRange host = {ByteOffset{found.host_offset}, found.guest.length};
      CO_RETURN_IF_ERROR(co_await file_->Prefetch(host));
    } else if (found.kind == SegmentKind::kUnallocated && options_.backing != nullptr) {
      const ByteRange all{ByteOffset{0}, options_.backing->limits().size};
      const ByteRange inside = Intersect(found.guest, all);
      CO_RETURN_IF_ERROR(co_await options_.backing->Cache(inside));
    }
    at = found.guest.end().value;
  }
  co_return absl::OkStatus();
}

Task<absl::StatusOr<block::ExtentList>> Disk::DoBlockStatus(ByteRange range,
                                                            std::size_t max_extents) {
  const Epochs::Pass pass = epochs_.Enter();
  block::ExtentList extents;
  uint64_t at = range.offset.value;
  while (at < range.end().value) {
    const ByteRange rest = Range(at, range.end().value - at);
    Segment segment;
    if (!mapper_.FindHere(rest, segment)) {
      const absl::StatusOr<Segment> found = co_await mapper_.Find(rest);
      // What is known so far is an answer; the error is for who asks on from there.
      if (!found.ok() && !extents.empty()) break;
      if (!found.ok()) co_return found.status();
      segment = *found;
    }
    if (segment.kind != SegmentKind::kUnallocated) {
      block::AppendExtent(extents, OwnExtent(segment));
    } else if (options_.backing == nullptr) {
      block::AppendExtent(extents, Nothing(segment.guest));
    } else {
      const absl::StatusOr<bool> all = co_await AppendBacking(segment.guest, max_extents, extents);
      if (!all.ok() && extents.empty()) co_return all.status();
      if (!all.ok() || !*all) break;
    }
    if (extents.size() > max_extents) break;
    at = segment.guest.end().value;
  }
  if (extents.size() > max_extents) extents.resize(max_extents);
  co_return extents;
}

// What the backing image says of `range`, one layer deeper; false if it does not say all, or there
// is no room for more.
Task<absl::StatusOr<bool>> Disk::AppendBacking(ByteRange range, std::size_t max_extents,
                                               block::ExtentList& extents) {
  const ByteRange all{ByteOffset{0}, options_.backing->limits().size};
  const ByteRange inside = Intersect(range, all);
  uint64_t at = inside.offset.value;
  while (at < inside.end().value) {
    if (extents.size() > max_extents) co_return false;
    const ByteRange rest = Range(at, inside.end().value - at);
    CO_ASSIGN_OR_RETURN(block::ExtentList below,
                        co_await options_.backing->BlockStatus(rest, max_extents));
    const block::ExtentList deeper = block::Deepen(std::move(below), 1);
    block::AppendExtents(extents, deeper);
    at = block::Covered(deeper).end().value;
  }
  if (inside.length < range.length) {
    const ByteRange past = Range(std::max(range.offset.value, all.length.value), 0);
    block::AppendExtent(extents, block::Extent{.range = {past.offset, range.end() - past.offset},
                                               .kind = block::ExtentKind::kZero,
                                               .layer = 2});
  }
  co_return true;
}

}  // namespace gabion::qcow2
