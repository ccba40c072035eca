#include "engine/formats/qcow2/mapper.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "engine/base/align.h"
#include "engine/base/bytes.h"
#include "engine/base/status_macros.h"
#include "engine/base/text.h"

namespace gabion::qcow2 {
namespace {

bool FitsBehind(const Segment& first, const Segment& second) {
  if (first.kind != second.kind || first.copied != second.copied) return false;
  if (first.kind == SegmentKind::kCompressedData) return false;
  if (first.host_offset == 0 || second.host_offset == 0) {
    return first.host_offset == second.host_offset;
  }
  return first.host_offset + first.guest.length.value == second.host_offset;
}

}  // namespace

Mapper::Mapper(Tables& tables, Allocator& allocator, Reclaimer& reclaimer)
    : tables_(tables), allocator_(allocator), reclaimer_(reclaimer), making_(tables.ready) {}

Segment Mapper::NoTable(ByteRange range) const {
  uint64_t index = tables_.L1Index(range.offset.value);
  const uint64_t coverage = tables_.geometry.l2_coverage();
  const uint64_t end = range.end().value;
  uint64_t known = (index + 1) * coverage;
  while (known < end && (tables_.l1[++index] & kOffsetMask) == 0) known += coverage;
  return Segment{.guest = Range(range.offset.value, std::min(known, end) - range.offset.value)};
}

absl::Status Mapper::CheckTable(uint64_t table) const {
  const auto found = tables_.metadata.find(tables_.geometry.ClusterOf(table));
  const bool is_table = found != tables_.metadata.end() && found->second == Metadata::kL2;
  if (is_table && table < tables_.end) return absl::OkStatus();
  return Damage(absl::StrCat("the L1 table names an L2 table at offset ", table));
}

Task<absl::StatusOr<Segment>> Mapper::LoadAndFind(ByteRange range, uint64_t table) {
  CO_RETURN_IF_ERROR(CheckTable(table));
  const uint64_t place = EntryPlace(table, range.offset.value);
  CO_ASSIGN_OR_RETURN(SliceCache::Slice* const slice, co_await tables_.l2.Load(place));
  co_return InSlice(range, *slice);
}

L2Entry Mapper::EntryIn(const SliceCache::Slice& slice, uint64_t guest_offset) const {
  const Geometry& geometry = tables_.geometry;
  const uint64_t in_table = tables_.L2Index(guest_offset) << geometry.l2_entry_bits();
  const std::byte* const at = slice.bytes.get() + (in_table & (tables_.l2.slice_bytes() - 1));
  return {LoadBe64(at), geometry.extended ? LoadBe64(at + sizeof(uint64_t)) : 0};
}

void Mapper::SetEntry(SliceCache::Slice& slice, uint64_t guest_offset, L2Entry entry) {
  const Geometry& geometry = tables_.geometry;
  const uint64_t in_table = tables_.L2Index(guest_offset) << geometry.l2_entry_bits();
  std::byte* const at = slice.bytes.get() + (in_table & (tables_.l2.slice_bytes() - 1));
  StoreBe64(at, entry.word);
  if (geometry.extended) StoreBe64(at + sizeof(uint64_t), entry.bitmap);
  tables_.l2.MarkDirty(slice);
}

bool Mapper::FindHere(ByteRange range, Segment& segment) {
  if (!FindOne(range, segment)) return false;
  // A run does not end where a slice does.
  while (segment.guest.end() < range.end() &&
         IsMultiple(segment.guest.end().value, SliceCoverage())) {
    Segment next;
    const ByteRange rest = {segment.guest.end(), range.end() - segment.guest.end()};
    if (!FindOne(rest, next) || !FitsBehind(segment, next)) break;
    segment.guest.length = segment.guest.length + next.guest.length;
  }
  return true;
}

bool Mapper::FindOne(ByteRange range, Segment& segment) {
  const uint64_t table = TableAt(range.offset.value);
  if (table == 0) {
    segment = NoTable(range);
    return true;
  }
  const SliceCache::Slice* const slice = SliceIfHere(table, range.offset.value);
  return slice != nullptr && InSlice(range, *slice, segment);
}

bool Mapper::InSlice(ByteRange range, const SliceCache::Slice& slice, Segment& segment) const {
  const uint64_t coverage = SliceCoverage();
  const uint64_t cluster = tables_.geometry.cluster_size();
  const uint64_t begin = range.offset.value;
  const uint64_t end = std::min(range.end().value, RoundDown(begin, coverage) + coverage);
  L2Entry entry = EntryIn(slice, begin);
  if (!UnitAt(begin, entry, segment)) return false;
  uint64_t at = segment.guest.end().value;
  while (at < end) {
    const L2Entry next_entry = EntryIn(slice, at);
    // Most runs are of clusters that follow one another.
    const bool has_host = segment.host_offset != 0;
    const bool goes_on = !tables_.geometry.extended && (next_entry.word & kCompressed) == 0 &&
                         next_entry.word == entry.word + (has_host ? cluster : 0) &&
                         (next_entry.word & kOffsetMask) < tables_.end;
    entry = next_entry;
    if (goes_on) {
      at += cluster;
      continue;
    }
    segment.guest = Range(begin, at - begin);
    Segment next;
    if (!UnitAt(at, entry, next) || !FitsBehind(segment, next)) break;  // for who asks from there
    at = next.guest.end().value;
  }
  segment.guest = Range(begin, std::min(at, end) - begin);
  return true;
}

absl::StatusOr<Segment> Mapper::InSlice(ByteRange range, const SliceCache::Slice& slice) const {
  Segment segment;
  if (InSlice(range, slice, segment)) return segment;
  return Damage(absl::StrCat("the L2 entry of the cluster at ",
                             tables_.geometry.ClusterStart(range.offset.value), " ",
                             WrongWith(EntryIn(slice, range.offset.value))));
}

const char* Mapper::WrongWith(L2Entry entry) const {
  const Geometry& geometry = tables_.geometry;
  const uint64_t host = entry.word & kOffsetMask;
  const uint64_t allocated = entry.bitmap & 0xffffffff;
  const uint64_t zero = entry.bitmap >> 32;
  if ((entry.word & kCompressed) != 0) {
    return entry.bitmap != 0 ? "is compressed and has subclusters" : nullptr;
  }
  if (geometry.InCluster(host) != 0) return "names an offset inside of a cluster";
  if ((allocated & zero) != 0) return "calls a subcluster both allocated and zero";
  if (host == 0 && allocated != 0) return "has subclusters and no cluster";
  if ((entry.word & kZeroFlag) != 0) {
    if (geometry.version < 3) return "has the zero flag, which version 2 does not know";
    return geometry.extended ? "has the zero flag besides subclusters" : nullptr;
  }
  const bool has_data = geometry.extended ? allocated != 0 : host != 0;
  if (has_data && host >= tables_.end) return "names a cluster past the end of the file";
  return nullptr;
}

// False: the entry makes no sense.
bool Mapper::UnitAt(uint64_t guest_offset, L2Entry entry, Segment& segment) const {
  const Geometry& geometry = tables_.geometry;
  if (WrongWith(entry) != nullptr) [[unlikely]]
    return false;
  const uint64_t in_cluster = geometry.InCluster(guest_offset);
  uint64_t length = geometry.cluster_size() - in_cluster;
  segment = Segment{};
  // What has reserved bits is not written in place, so that they are noticed.
  segment.copied = (entry.word & kCopied) != 0 && (entry.word & kL2Reserved) == 0;
  if ((entry.word & kCompressed) != 0) {
    segment.kind = SegmentKind::kCompressedData;
    segment.entry = entry.word;
    segment.copied = false;
    segment.guest = Range(guest_offset, length);
    return true;
  }
  const uint64_t host = entry.word & kOffsetMask;
  bool is_zero = (entry.word & kZeroFlag) != 0;
  bool is_data = !is_zero && host != 0;
  if (geometry.extended) {
    const uint32_t unit = static_cast<uint32_t>(in_cluster / geometry.subcluster_size());
    const uint32_t allocated = static_cast<uint32_t>(entry.bitmap) >> unit;
    const uint32_t zero = static_cast<uint32_t>(entry.bitmap >> 32) >> unit;
    is_data = (allocated & 1) != 0;
    is_zero = (zero & 1) != 0;
    const int run = std::min(is_data ? std::countr_one(allocated) : std::countr_zero(allocated),
                             is_zero ? std::countr_one(zero) : std::countr_zero(zero));
    const uint64_t end = (unit + static_cast<uint64_t>(run)) * geometry.subcluster_size();
    length = std::min(end, geometry.cluster_size()) - in_cluster;
  }
  segment.guest = Range(guest_offset, length);
  segment.host_offset = host == 0 ? 0 : host + in_cluster;
  if (is_data) {
    segment.kind = SegmentKind::kData;
  } else if (is_zero) {
    segment.kind = host == 0 ? SegmentKind::kZero : SegmentKind::kZeroAllocated;
  }
  return true;
}

Task<absl::StatusOr<SliceCache::Slice*>> Mapper::ForChange(uint64_t guest_offset) {
  CO_ASSIGN_OR_RETURN(const uint64_t table, co_await TableForChange(tables_.L1Index(guest_offset)));
  const uint64_t place = EntryPlace(table, guest_offset);
  CO_ASSIGN_OR_RETURN(SliceCache::Slice* const slice, co_await tables_.l2.Load(place));
  if (!tables_.unwritable.ok()) co_return tables_.unwritable;
  co_return slice;
}

Task<absl::StatusOr<uint64_t>> Mapper::TableForChange(uint64_t l1_index) {
  const auto usable = [](uint64_t entry) {
    return (entry & kCopied) != 0 && (entry & kOffsetMask) != 0;
  };
  if (!usable(tables_.l1[l1_index])) {
    const block::RangeLock::Guard guard =
        co_await making_.Acquire(Range(l1_index, 1), block::RangeLockMode::kExclusive);
    if (!usable(tables_.l1[l1_index])) {
      CO_RETURN_IF_ERROR(co_await MakeTable(l1_index));
    }
  }
  const uint64_t entry = tables_.l1[l1_index];
  const uint64_t table = entry & kOffsetMask;
  absl::Status status = CheckTable(table);
  if (status.ok() && (entry & kL1Reserved) != 0) {
    status = Damage(absl::StrCat("L1 entry ", l1_index, " has reserved bits"));
  }
  if (!status.ok()) {
    const std::string what(status.message());
    co_return co_await tables_.MarkCorrupt(what);
  }
  co_return table;
}

// A new table, or a copy of one that snapshots have, too.
Task<absl::Status> Mapper::MakeTable(uint64_t l1_index) {
  const uint64_t size = tables_.geometry.cluster_size();
  const uint64_t old = tables_.l1[l1_index] & kOffsetMask;
  if (old != 0) CO_RETURN_IF_ERROR(CheckTable(old));
  CO_ASSIGN_OR_RETURN(const Allocator::Run run, co_await allocator_.Allocate(1));
  tables_.SetMetadata(Metadata::kL2, run.offset, size);
  tables_.new_l2.insert(run.offset);
  tables_.l2.InsertZeros(run.offset, size);
  if (old != 0) {
    // If that fails, the new cluster stays unused: it is about to be written, and must not become
    // something else.
    CO_RETURN_IF_ERROR(co_await CopyTable(old, run.offset));
    reclaimer_.Add(old);
  }
  tables_.dirty_l1.try_emplace(l1_index, tables_.l1[l1_index]);
  tables_.l1[l1_index] = run.offset | kCopied;
  co_return absl::OkStatus();
}

Task<absl::Status> Mapper::CopyTable(uint64_t from, uint64_t to) {
  const uint32_t step = tables_.l2.slice_bytes();
  for (uint64_t at = 0; at < tables_.geometry.cluster_size(); at += step) {
    CO_ASSIGN_OR_RETURN(const SliceCache::Slice* const loaded, co_await tables_.l2.Load(from + at));
    const std::vector<std::byte> bytes(loaded->bytes.get(), loaded->bytes.get() + step);
    CO_ASSIGN_OR_RETURN(SliceCache::Slice* const copy, co_await tables_.l2.Load(to + at));
    std::memcpy(copy->bytes.get(), bytes.data(), step);
    tables_.l2.MarkDirty(*copy);
  }
  co_return absl::OkStatus();
}

Mapper::Clusters Mapper::Lost(L2Entry old, L2Entry now) const {
  const Geometry& geometry = tables_.geometry;
  if ((old.word & kCompressed) != 0) {
    const uint64_t begin = geometry.CompressedOffset(old.word);
    const uint64_t last = begin + geometry.CompressedBytes(old.word) - 1;
    const uint64_t first = geometry.ClusterOf(begin);
    return {first, geometry.ClusterOf(last) - first + 1};
  }
  const uint64_t host = old.word & kOffsetMask;
  if (host == 0 || host == (now.word & kOffsetMask)) return {};
  return {geometry.ClusterOf(host), 1};
}

absl::Status Mapper::CheckReplace(const SliceCache::Slice& slice, uint64_t guest_offset,
                                  L2Entry now) const {
  const L2Entry old = EntryIn(slice, guest_offset);
  if ((old.word & kCompressed) == 0 && (old.word & kL2Reserved) != 0) {
    return Damage(absl::StrCat("the L2 entry of the cluster at ",
                               tables_.geometry.ClusterStart(guest_offset), " has reserved bits"));
  }
  const Clusters lost = Lost(old, now);
  for (uint64_t i = 0; i < lost.count; ++i) RETURN_IF_ERROR(CheckIsData(lost.first + i));
  return absl::OkStatus();
}

void Mapper::Replace(SliceCache::Slice& slice, uint64_t guest_offset, L2Entry now) {
  const Clusters lost = Lost(EntryIn(slice, guest_offset), now);
  if (lost.count > 0) reclaimer_.Add(lost.first << tables_.geometry.cluster_bits, lost.count);
  SetEntry(slice, guest_offset, now);
}

absl::Status Mapper::CheckIsData(uint64_t host_cluster) const {
  const auto found = tables_.metadata.find(host_cluster);
  if (found == tables_.metadata.end()) return absl::OkStatus();
  return Damage(absl::StrCat("an L2 entry refers to cluster ", host_cluster,
                             " of the file, which holds ", AsAbsl(NameOf(found->second))));
}

}  // namespace gabion::qcow2
