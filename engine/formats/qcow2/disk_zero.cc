// Zeros and discards: changes of tables where they can be, and of data where they must be.
#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "engine/base/status_macros.h"
#include "engine/formats/qcow2/disk.h"

namespace gabion::qcow2 {
namespace {

constexpr block::RangeLockMode kExclusive = block::RangeLockMode::kExclusive;
constexpr std::size_t kZeroChunk = 2 * kMiB;

// Never written, so it takes no memory but page tables.
Bytes Zeros(std::size_t length) {
  alignas(4096) static std::array<std::byte, kZeroChunk> zeros;
  return Bytes(zeros).first(length);
}

bool Same(L2Entry a, L2Entry b) { return a.word == b.word && a.bitmap == b.bitmap; }

}  // namespace

ByteRange Disk::WholeUnits(ByteRange range, uint64_t unit) const {
  const uint64_t begin = RoundUp(range.offset.value, unit);
  const bool to_the_end = range.end().value == limits().size.value;
  const uint64_t end = to_the_end ? range.end().value : RoundDown(range.end().value, unit);
  return Range(begin, end > begin ? end - begin : 0);
}

Task<absl::Status> Disk::DoZero(ByteRange range, block::ZeroOptions options) {
  CO_RETURN_IF_ERROR(CheckWritable());
  const absl::Status status = co_await ZeroRange(range, options);
  const absl::Status done = co_await AfterChange(status, options.durable);
  co_return done;
}

Task<absl::Status> Disk::ZeroRange(ByteRange range, block::ZeroOptions options) {
  const ZeroHow unmap = options.own ? ZeroHow::kOwn : ZeroHow::kUnmap;
  const ZeroHow how = options.may_unmap ? unmap : ZeroHow::kKeep;
  ByteRange whole = WholeUnits(range, tables_.geometry.subcluster_size());
  if (whole.empty() || !CanZeroByTables(how)) whole = ByteRange{range.end(), ByteCount{0}};
  const ByteRange head = {range.offset, whole.offset - range.offset};
  const ByteRange tail = {whole.end(), range.end() - whole.end()};
  for (const ByteRange edge : {head, tail}) {
    if (edge.empty()) continue;
    CO_ASSIGN_OR_RETURN(const bool is_zero, co_await ReadsZero(edge));
    if (is_zero && options.may_unmap && !options.own) continue;
    if (options.fast_only) {
      co_return absl::UnimplementedError("parts of clusters are zeroed by writing");
    }
    CO_RETURN_IF_ERROR(co_await WriteZeros(edge));
  }
  const absl::Status status = co_await ZeroTables(whole, how);
  co_return status;
}

Task<absl::StatusOr<bool>> Disk::ReadsZero(ByteRange range) {
  const Epochs::Pass pass = epochs_.Enter();
  uint64_t at = range.offset.value;
  while (at < range.end().value) {
    const ByteRange rest = Range(at, range.end().value - at);
    CO_ASSIGN_OR_RETURN(const Segment found, co_await mapper_.Find(rest));
    if (!IsZeroByTables(found.kind, found.guest)) co_return false;
    at = found.guest.end().value;
  }
  co_return true;
}

Task<absl::Status> Disk::WriteZeros(ByteRange range) {
  for (uint64_t at = range.offset.value; at < range.end().value;) {
    const uint64_t length = std::min<uint64_t>(range.end().value - at, kZeroChunk);
    CO_RETURN_IF_ERROR(co_await WriteSegments(Range(at, length), Zeros(length)));
    CO_RETURN_IF_ERROR(co_await CommitIfMuch());
    at += length;
  }
  co_return absl::OkStatus();
}

Task<absl::Status> Disk::DoDiscard(ByteRange range) {
  CO_RETURN_IF_ERROR(CheckWritable());
  // Without a flag for zeros, what lies below would come back.
  if (!CanZeroByTables(ZeroHow::kDiscard)) co_return absl::OkStatus();
  const ByteRange whole = WholeUnits(range, tables_.geometry.cluster_size());
  const absl::Status status = co_await ZeroTables(whole, ZeroHow::kDiscard);
  const absl::Status done = co_await AfterChange(status, false);
  co_return done;
}

// Slice by slice, so that a long range lets others in between, and its tables be written.
Task<absl::Status> Disk::ZeroTables(ByteRange range, ZeroHow how) {
  uint64_t at = range.offset.value;
  while (at < range.end().value) {
    const ByteRange rest = Range(at, range.end().value - at);
    const absl::StatusOr<uint64_t> done = co_await ZeroSome(rest, how);
    if (!done.ok()) co_return co_await Found(done.status());
    at += *done;
    CO_RETURN_IF_ERROR(co_await CommitIfMuch());
  }
  co_return absl::OkStatus();
}

// A part from the start of `range` on; how many bytes.
Task<absl::StatusOr<uint64_t>> Disk::ZeroSome(ByteRange range, ZeroHow how) {
  CO_ASSIGN_OR_RETURN(const Segment found, co_await mapper_.Find(range));
  const bool is_nothing = found.kind == SegmentKind::kUnallocated && found.host_offset == 0;
  const bool shows_zeros = how == ZeroHow::kUnmap && options_.backing == nullptr;
  const bool leaves_it = how == ZeroHow::kDiscard || how == ZeroHow::kRemove;
  const bool is_done = is_nothing && (shows_zeros || leaves_it);
  if (is_done) co_return found.guest.length.value;
  const uint64_t coverage = mapper_.SliceCoverage();
  const uint64_t end =
      std::min(RoundDown(range.offset.value, coverage) + coverage, range.end().value);
  const ByteRange part = {range.offset, ByteOffset{end} - range.offset};
  const ByteRange clusters = WholeClusters(part);
  const block::RangeLock::Guard guard = co_await changing_.Acquire(clusters, kExclusive);
  {
    const Epochs::Pass pass = epochs_.Enter();
    CO_RETURN_IF_ERROR(co_await RewriteCompressed(part));
    if (how == ZeroHow::kKeep) CO_RETURN_IF_ERROR(co_await Reserve(part));
    CO_RETURN_IF_ERROR(co_await ZeroEntries(part, how));
  }
  // A write that is under way to a cluster that stays must not come to light when somebody uses the
  // cluster again: until it has ended, the lock keeps them waiting.
  if (MayKeepClusters(how)) co_await epochs_.Quiesce();
  co_return part.length.value;
}

// Subclusters of a compressed cluster cannot be zeroed on their own: it becomes a normal one.
Task<absl::Status> Disk::RewriteCompressed(ByteRange range) {
  const Geometry& geometry = tables_.geometry;
  if (!geometry.extended) co_return absl::OkStatus();
  const uint64_t first = geometry.ClusterStart(range.offset.value);
  const uint64_t last = geometry.ClusterStart(range.end().value - 1);
  for (const uint64_t at : {first, last}) {
    const ByteRange cluster = Intersect(Range(at, geometry.cluster_size()), range);
    if (cluster.length.value == geometry.cluster_size()) continue;
    CO_ASSIGN_OR_RETURN(const Segment found, co_await mapper_.Find(cluster));
    if (found.kind != SegmentKind::kCompressedData) continue;
    const Bytes zeros = Zeros(cluster.length.value);
    CO_RETURN_IF_ERROR(co_await WriteInOrder(cluster, zeros));
  }
  co_return absl::OkStatus();
}

L2Entry Disk::Zeroed(L2Entry old, uint64_t cluster_start, ByteRange range, ZeroHow how) const {
  const Geometry& geometry = tables_.geometry;
  const uint64_t host = (old.word & kCompressed) != 0 ? 0 : old.word & kOffsetMask;
  const bool has_content = old.word != 0 && (host != 0 || (old.word & kCompressed) != 0);
  if (how == ZeroHow::kRemove) return {};
  if (how == ZeroHow::kDiscard && !has_content) return old;
  if (geometry.version < 3) return {};
  if (!geometry.extended) {
    const bool keeps = how == ZeroHow::kKeep && host != 0 && (old.word & kCopied) != 0;
    return {keeps ? (host | kCopied | kZeroFlag) : kZeroFlag, 0};
  }
  const uint64_t unit = geometry.subcluster_size();
  const uint64_t begin = std::max(cluster_start, range.offset.value);
  const uint64_t end =
      std::min(cluster_start + geometry.cluster_size(), RoundUp(range.end().value, unit));
  const uint64_t count = (end - begin) / unit;
  const uint64_t bits = ((uint64_t{1} << count) - 1) << ((begin - cluster_start) / unit);
  L2Entry now{old.word, (old.bitmap & ~bits) | (bits << 32)};
  const bool is_all = count == kSubclusters;
  if (is_all && (how != ZeroHow::kKeep || (old.word & kCopied) == 0)) now.word = 0;
  return now;
}

Task<absl::Status> Disk::ZeroEntries(ByteRange range, ZeroHow how) {
  const uint64_t size = tables_.geometry.cluster_size();
  const uint64_t first = tables_.geometry.ClusterStart(range.offset.value);
  CO_ASSIGN_OR_RETURN(SliceCache::Slice* const slice, co_await mapper_.ForChange(first));
  for (uint64_t at = first; at < range.end().value; at += size) {
    const L2Entry now = Zeroed(mapper_.EntryIn(*slice, at), at, range, how);
    CO_RETURN_IF_ERROR(mapper_.CheckReplace(*slice, at, now));
  }
  for (uint64_t at = first; at < range.end().value; at += size) {
    const L2Entry old = mapper_.EntryIn(*slice, at);
    const L2Entry now = Zeroed(old, at, range, how);
    if (!Same(old, now)) mapper_.Replace(*slice, at, now);
  }
  co_return absl::OkStatus();
}

// Gives clusters of their own to those that have none, as zeros; whole clusters, or those parts of
// `range` that lie in one.
Task<absl::Status> Disk::Reserve(ByteRange range) {
  const Geometry& geometry = tables_.geometry;
  const uint64_t size = geometry.cluster_size();
  uint64_t at = range.offset.value;
  while (at < range.end().value) {
    const ByteRange rest = Range(at, range.end().value - at);
    CO_ASSIGN_OR_RETURN(Segment found, co_await mapper_.Find(rest));
    if (found.host_offset != 0 && found.copied) {
      at = found.guest.end().value;
      continue;
    }
    const bool is_whole = found.kind == SegmentKind::kCompressedData || found.host_offset != 0;
    if (geometry.extended && is_whole) {
      // What of the cluster is not zeroed moves to the new one.
      const uint64_t length = std::min(found.guest.length.value, uint64_t{kZeroChunk});
      CO_RETURN_IF_ERROR(co_await WriteInOrder(Range(at, length), Zeros(length)));
      at += length;
      continue;
    }
    CO_ASSIGN_OR_RETURN(const Place place, co_await FindPlace(found.guest, found));
    const uint64_t clusters = geometry.Clusters(geometry.InCluster(at) + place.guest.length.value);
    const ByteRange host = Range(geometry.ClusterStart(place.host), clusters * size);
    absl::Status status = co_await CoverByFile(host);
    if (status.ok()) status = co_await file_->Zero(host, io::ZeroMode::kKeepAllocated);
    if (absl::IsUnimplemented(status)) status = absl::OkStatus();
    if (status.ok()) status = co_await LinkZero(place);
    if (!status.ok()) {
      const absl::Status abandoned = co_await Abandon(place);
      status.Update(abandoned);
      co_return status;
    }
    at = place.guest.end().value;
  }
  co_return absl::OkStatus();
}

// Nothing refers to what lies past the end of the file, and nothing is reserved there.
Task<absl::Status> Disk::CoverByFile(ByteRange host) {
  if (host.end().value <= file_->size().value) return absl::OkStatus();
  return file_->Write(ByteOffset{host.end().value - 1}, Zeros(1), false);
}

Task<absl::Status> Disk::LinkZero(Place place) {
  const Geometry& geometry = tables_.geometry;
  const uint64_t first = geometry.ClusterStart(place.guest.offset.value);
  CO_ASSIGN_OR_RETURN(SliceCache::Slice* const slice, co_await mapper_.ForChange(first));
  const auto entry_at = [&](uint64_t at) {
    const uint64_t host = geometry.ClusterStart(place.host) + (at - first);
    // Subclusters keep what they are: zero or unallocated; ZeroEntries() comes next.
    const uint64_t bitmap = mapper_.EntryIn(*slice, at).bitmap;
    return geometry.extended ? L2Entry{host | kCopied, bitmap}
                             : L2Entry{host | kCopied | kZeroFlag, 0};
  };
  for (uint64_t at = first; at < place.guest.end().value; at += geometry.cluster_size()) {
    CO_RETURN_IF_ERROR(mapper_.CheckReplace(*slice, at, entry_at(at)));
  }
  for (uint64_t at = first; at < place.guest.end().value; at += geometry.cluster_size()) {
    mapper_.Replace(*slice, at, entry_at(at));
  }
  co_return absl::OkStatus();
}

}  // namespace gabion::qcow2
