// Writing to a qcow2 image: in place, or to new clusters with what lies around the bytes.
#include <algorithm>
#include <array>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "engine/base/check.h"
#include "engine/base/status_macros.h"
#include "engine/block/zeros.h"
#include "engine/formats/qcow2/disk.h"

namespace gabion::qcow2 {
namespace {

constexpr block::RangeLockMode kExclusive = block::RangeLockMode::kExclusive;
constexpr std::size_t kFewWrites = 4;
// A request is written in pieces of this size, at the same time, so that each of them can wait for
// others.
constexpr uint64_t kPiece = 2 * kMiB;
// Up to here it is cheaper to copy a request between its surroundings than to write three times.
constexpr uint64_t kLargestMerged = 256 * kKiB;

}  // namespace

Task<absl::Status> Disk::DoWrite(ByteRange range, Bytes src, block::WriteOptions options) {
  CO_RETURN_IF_ERROR(CheckWritable());
  absl::Status status;
  const absl::StatusOr<Segment> found = co_await mapper_.Find(range);
  if (found.ok() && IsInPlace(*found) && found->guest.length == range.length) {
    const bool is_enough = options.durable && !commit_.IsDirty();
    status = co_await WriteInPlace(*found, src, is_enough);
    if (is_enough || !options.durable) co_return status;
  } else {
    status = co_await WriteSegments(range, src);
  }
  const absl::Status done = co_await AfterChange(status, options.durable);
  co_return done;
}

Task<absl::Status> Disk::WriteInPlace(Segment segment, Bytes src, bool durable) {
  const Epochs::Pass pass = epochs_.Enter();
  const Geometry& geometry = tables_.geometry;
  const uint64_t last = geometry.ClusterOf(segment.host_offset + src.size() - 1);
  for (uint64_t i = geometry.ClusterOf(segment.host_offset); i <= last; ++i) {
    const absl::Status status = mapper_.CheckIsData(i);  // W8
    if (!status.ok()) [[unlikely]]
      co_return co_await Found(status);
  }
  const absl::Status status = co_await file_->Write(ByteOffset{segment.host_offset}, src, durable);
  co_return status;
}

Task<absl::Status> Disk::WriteSegments(ByteRange range, Bytes src) {
  absl::InlinedVector<Task<absl::Status>, kFewWrites> writes;
  absl::Status status;
  uint64_t at = range.offset.value;
  while (at < range.end().value) {
    const ByteRange rest = Range(at, range.end().value - at);
    const absl::StatusOr<Segment> found = co_await mapper_.Find(rest);
    if (!found.ok()) {
      status = found.status();
      break;
    }
    uint64_t length = found->guest.length.value;
    if (!IsInPlace(*found)) length = std::min(length, RoundDown(at, kPiece) + kPiece - at);
    const Bytes part = src.subspan(at - range.offset.value, length);
    if (IsInPlace(*found)) {
      writes.push_back(WriteInPlace(*found, part, false));
    } else {
      writes.push_back(WriteLocked(Range(at, length), part));
    }
    at += length;
  }
  for (Task<absl::Status>& write : writes) {
    const absl::Status done = co_await write;
    status.Update(done);
  }
  co_return co_await Found(status);
}

ByteRange Disk::WholeClusters(ByteRange range) const {
  const uint64_t size = tables_.geometry.cluster_size();
  const uint64_t begin = RoundDown(range.offset.value, size);
  return Range(begin, RoundUp(range.end().value, size) - begin);
}

// Whoever comes second to a cluster finds it allocated, and writes in place. Nobody waits for a
// lock with a pass in hand: who holds the lock may wait for all passes.
Task<absl::Status> Disk::WriteLocked(ByteRange range, Bytes src) {
  const ByteRange clusters = WholeClusters(range);
  const block::RangeLock::Guard guard = co_await changing_.Acquire(clusters, kExclusive);
  const Epochs::Pass pass = epochs_.Enter();
  const absl::Status status = co_await WriteInOrder(range, src);
  co_return status;
}

Task<absl::Status> Disk::WriteInOrder(ByteRange range, Bytes src) {
  uint64_t at = range.offset.value;
  while (at < range.end().value) {
    const ByteRange rest = Range(at, range.end().value - at);
    CO_ASSIGN_OR_RETURN(const Segment found, co_await mapper_.Find(rest));
    const Bytes left = src.subspan(at - range.offset.value);
    if (IsInPlace(found)) {
      const Bytes part = left.first(found.guest.length.value);
      CO_RETURN_IF_ERROR(co_await WriteInPlace(found, part, false));
      at = found.guest.end().value;
    } else {
      const absl::StatusOr<uint64_t> written = co_await WriteNew(rest, left, found);
      if (!written.ok()) co_return co_await Found(written.status());
      at += *written;
    }
  }
  co_return absl::OkStatus();
}

// Writes a part of `range`, which begins with `segment`; how many bytes.
Task<absl::StatusOr<uint64_t>> Disk::WriteNew(ByteRange range, Bytes src, Segment segment) {
  const uint64_t slice_end =
      RoundDown(range.offset.value, mapper_.SliceCoverage()) + mapper_.SliceCoverage();
  const uint64_t end = std::min(segment.guest.end().value, slice_end);
  const ByteRange part = Range(range.offset.value, end - range.offset.value);
  const auto table = co_await mapper_.ForChange(part.offset.value);
  if (!table.ok()) co_return table.status();
  CO_ASSIGN_OR_RETURN(const Place place, co_await FindPlace(part, segment));
  const uint64_t length = place.guest.length.value;
  const Bytes bytes = src.first(length);
  absl::Status status = co_await WriteFilled(place, bytes, segment.kind);
  if (status.ok()) status = co_await Link(place);
  if (status.ok()) co_return length;
  if (place.is_new) {
    const absl::Status abandoned = co_await Abandon(place);
    status.Update(abandoned);
  }
  co_return status;
}

Task<absl::StatusOr<Disk::Place>> Disk::FindPlace(ByteRange range, Segment segment) {
  const Geometry& geometry = tables_.geometry;
  Place place{.guest = range};
  if (segment.copied && segment.host_offset != 0) {
    // The cluster is there; the bytes in it do not count yet.
    CO_RETURN_IF_ERROR(mapper_.CheckIsData(geometry.ClusterOf(segment.host_offset)));
    place.host = segment.host_offset;
    place.unit = geometry.subcluster_size();
    tables_.NoteEnd(segment.host_offset + range.length.value);  // it may lie behind the file's end
    co_return place;
  }
  const uint64_t first = geometry.ClusterOf(range.offset.value);
  const uint64_t last = geometry.ClusterOf(range.end().value - 1);
  CO_ASSIGN_OR_RETURN(const Allocator::Run run, co_await allocator_.Allocate(last - first + 1));
  const uint64_t end = std::min(range.end().value, (first + run.clusters) << geometry.cluster_bits);
  place.guest.length.value = end - range.offset.value;
  place.host = run.offset + geometry.InCluster(range.offset.value);
  place.is_new = true;
  place.is_fresh = run.fresh;
  // What a cluster that is left behind holds comes along as a whole.
  place.is_whole = segment.kind == SegmentKind::kCompressedData || segment.host_offset != 0;
  place.unit = place.is_whole ? geometry.cluster_size() : geometry.subcluster_size();
  co_return place;
}

Task<absl::Status> Disk::WriteFilled(Place place, Bytes src, SegmentKind old_kind) {
  const ByteRange head = place.Head();
  const ByteRange tail = place.Tail();
  const bool fill_is_zero = (head.empty() || IsZeroByTables(old_kind, head)) &&
                            (tail.empty() || IsZeroByTables(old_kind, tail)) &&
                            !(place.is_whole && tables_.geometry.extended);
  const bool nothing_to_fill = head.empty() && tail.empty();
  if (nothing_to_fill || (fill_is_zero && place.is_fresh)) {
    return file_->Write(ByteOffset{place.host}, src, false);
  }
  const uint64_t whole = head.length.value + src.size() + tail.length.value;
  if (whole <= kLargestMerged) return WriteMerged(place, src, fill_is_zero);
  return WriteApart(place, src, fill_is_zero);
}

Task<absl::Status> Disk::ReadFill(ByteRange range, MutableBytes dst, bool fill_is_zero) {
  const ByteRange disk{ByteOffset{0}, limits().size};
  const ByteRange inside = Intersect(range, disk);
  const std::size_t covered = fill_is_zero ? 0 : inside.length.value;
  std::memset(dst.data() + covered, 0, dst.size() - covered);
  if (covered == 0) return absl::OkStatus();
  return ReadSegments(inside, dst.first(covered));
}

Task<absl::Status> Disk::WriteMerged(Place place, Bytes src, bool fill_is_zero) {
  const ByteRange head = place.Head();
  const ByteRange tail = place.Tail();
  const std::size_t whole = head.length.value + src.size() + tail.length.value;
  block::StagingPool::Buffer buffer = co_await staging_.Take(whole);
  const MutableBytes head_bytes = buffer.bytes().first(head.length.value);
  const MutableBytes tail_bytes = buffer.bytes().last(tail.length.value);
  Task<absl::Status> head_read = ReadFill(head, head_bytes, fill_is_zero);
  Task<absl::Status> tail_read = ReadFill(tail, tail_bytes, fill_is_zero);
  absl::Status status = co_await head_read;
  const absl::Status tail_status = co_await tail_read;
  status.Update(tail_status);
  if (!status.ok()) co_return status;
  if (place.is_fresh && block::IsZero(head_bytes) && block::IsZero(tail_bytes)) {
    status = co_await file_->Write(ByteOffset{place.host}, src, false);
    co_return status;
  }
  std::memcpy(buffer.bytes().data() + head.length.value, src.data(), src.size());
  const Bytes bytes = buffer.bytes();
  status = co_await file_->Write(ByteOffset{place.host - head.length.value}, bytes, false);
  co_return status;
}

Task<absl::Status> Disk::WriteApart(Place place, Bytes src, bool fill_is_zero) {
  const ByteRange head = place.Head();
  const ByteRange tail = place.Tail();
  block::StagingPool::Buffer buffer = co_await staging_.Take(head.length.value + tail.length.value);
  const MutableBytes head_bytes = buffer.bytes().first(head.length.value);
  const MutableBytes tail_bytes = buffer.bytes().last(tail.length.value);
  Task<absl::Status> middle = file_->Write(ByteOffset{place.host}, src, false);
  Task<absl::Status> head_read = ReadFill(head, head_bytes, fill_is_zero);
  Task<absl::Status> tail_read = ReadFill(tail, tail_bytes, fill_is_zero);
  absl::Status status = co_await head_read;
  const absl::Status tail_status = co_await tail_read;
  status.Update(tail_status);
  if (status.ok() && !(place.is_fresh && block::IsZero(head_bytes))) {
    const ByteOffset at{place.host - head.length.value};
    status = co_await file_->Write(at, head_bytes, false);
  }
  if (status.ok() && !(place.is_fresh && block::IsZero(tail_bytes))) {
    const ByteOffset at{place.host + src.size()};
    status = co_await file_->Write(at, tail_bytes, false);
  }
  const absl::Status written = co_await middle;
  status.Update(written);
  co_return status;
}

L2Entry Disk::Linked(const Place& place, uint64_t cluster_start, L2Entry old) const {
  const Geometry& geometry = tables_.geometry;
  const uint64_t first_cluster = geometry.ClusterStart(place.guest.offset.value);
  const uint64_t host = geometry.ClusterStart(place.host) + (cluster_start - first_cluster);
  L2Entry now{host | kCopied, 0};
  if (!geometry.extended) return now;
  if ((old.word & kCompressed) != 0) return {now.word, 0xffffffff};
  const uint64_t unit = geometry.subcluster_size();
  const uint64_t begin = std::max(cluster_start, RoundDown(place.guest.offset.value, unit));
  const uint64_t end =
      std::min(cluster_start + geometry.cluster_size(), RoundUp(place.guest.end().value, unit));
  const uint64_t count = (end - begin) / unit;
  const uint64_t bits = ((uint64_t{1} << count) - 1) << ((begin - cluster_start) / unit);
  now.bitmap = (old.bitmap | bits) & ~(bits << 32);
  return now;
}

// The entries change when the bytes are in the file, all at the same moment (W2, W7).
Task<absl::Status> Disk::Link(Place place) {
  const Geometry& geometry = tables_.geometry;
  const uint64_t first = geometry.ClusterStart(place.guest.offset.value);
  CO_ASSIGN_OR_RETURN(SliceCache::Slice* const slice, co_await mapper_.ForChange(first));
  for (uint64_t at = first; at < place.guest.end().value; at += geometry.cluster_size()) {
    const L2Entry now = Linked(place, at, mapper_.EntryIn(*slice, at));
    CO_RETURN_IF_ERROR(mapper_.CheckReplace(*slice, at, now));
  }
  for (uint64_t at = first; at < place.guest.end().value; at += geometry.cluster_size()) {
    mapper_.Replace(*slice, at, Linked(place, at, mapper_.EntryIn(*slice, at)));
  }
  co_return absl::OkStatus();
}

// Nothing refers to these clusters, neither here nor in the file.
Task<absl::Status> Disk::Abandon(Place place) {
  const Geometry& geometry = tables_.geometry;
  std::vector<uint64_t> clusters;
  const uint64_t first = geometry.ClusterOf(place.host);
  const uint64_t last = geometry.ClusterOf(place.host + place.guest.length.value - 1);
  for (uint64_t i = first; i <= last; ++i) clusters.push_back(i);
  const absl::Status status = co_await allocator_.Release(clusters);
  co_return status;
}

}  // namespace gabion::qcow2
