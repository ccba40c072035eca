#include "engine/formats/qcow2/references.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/align.h"
#include "engine/base/bytes.h"
#include "engine/base/status_macros.h"
#include "engine/formats/qcow2/byte_cursor.h"
#include "engine/formats/qcow2/layout.h"
#include "engine/formats/qcow2/reference_visitor.h"
#include "engine/formats/qcow2/snapshots.h"

namespace gabion::qcow2 {
namespace {

// An entry of the bitmap directory, without extra data and name.
constexpr std::size_t kBitmapEntryBytes = 24;
constexpr std::size_t kBitmapTableOffset = 0;
constexpr std::size_t kBitmapTableEntries = 8;
constexpr std::size_t kBitmapNameSize = 18;
constexpr std::size_t kBitmapExtraSize = 20;
constexpr uint64_t kMaxBitmapTableEntries = 0x8000000;
// Of an entry of a bitmap table: bit 0 says "all ones" where there is no offset.
constexpr uint64_t kBitmapTableReserved = 0xff000000000001fe;

// Clusters that are counted without a pause: some 100 us.
constexpr uint64_t kMaxAreaClusters = 16384;

absl::Status Wrong(std::string what) { return absl::FailedPreconditionError(std::move(what)); }

}  // namespace

void References::AddArea(uint64_t offset, uint64_t length) {
  if (length == 0) return;
  const uint64_t first = context_.geometry.ClusterOf(offset);
  const uint64_t last = context_.geometry.ClusterOf(offset + length - 1);
  const uint32_t bits = context_.geometry.cluster_bits;
  areas_.Add(first << bits, (last - first + 1) << bits);
}

void References::ReportUnknown(FindingKind kind, uint64_t offset, const absl::Status& status) {
  if (context_.found != nullptr) context_.found->unknown_references = true;
  if (!absl::IsFailedPrecondition(status) && !absl::IsOutOfRange(status)) {
    context_.ReportUnreadable(offset, status);
    return;
  }
  context_.Report(kind, offset, std::nullopt, [&] { return std::string(status.message()); });
}

Task<absl::Status> References::Prepare() {
  AddArea(0, context_.geometry.cluster_size());
  const uint64_t l1_bytes = uint64_t{context_.header.l1_size} * 8;
  if (FitsWithin(Range(context_.header.l1_offset, l1_bytes), {context_.file.size()})) {
    AddArea(context_.header.l1_offset, l1_bytes);
  } else {
    if (context_.found != nullptr) context_.found->past_end = 0;
    context_.Report(FindingKind::kPastEnd, context_.header.l1_offset, std::nullopt,
                    [] { return std::string("the L1 table ends past the end of the file"); });
  }
  CO_RETURN_IF_ERROR(co_await PrepareSnapshots());
  CO_RETURN_IF_ERROR(co_await PrepareBitmaps());
  co_return absl::OkStatus();
}

Task<absl::Status> References::PrepareSnapshots() {
  // Not what the header says: its reader may have left out a table that cannot be used.
  std::byte field[4];
  const absl::Status read = co_await context_.file.Read(kSnapshotCountField, field);
  if (!read.ok()) {
    ReportUnknown(FindingKind::kSnapshotTable, 0, read);
    co_return absl::OkStatus();
  }
  const uint64_t offset = context_.header.snapshots_offset;
  absl::Status status;
  SnapshotTable table;
  if (LoadBe32(field) != context_.header.snapshot_count) {
    status = Wrong(absl::StrCat("snapshot table: its ", LoadBe32(field),
                                " snapshots are not where they should be"));
  } else if (context_.header.snapshot_count > 0) {
    status = co_await ReadSnapshotTable(context_.file, context_.header, table);
  }
  if (!status.ok()) ReportUnknown(FindingKind::kSnapshotTable, offset, status);
  if (status.ok()) AddArea(offset, table.bytes);
  for (const Snapshot& snapshot : table.snapshots) {
    if (!snapshot.damage.empty()) {
      ReportUnknown(FindingKind::kSnapshotTable, snapshot.l1_offset,
                    Wrong(absl::StrCat("a snapshot: ", snapshot.damage)));
      continue;
    }
    AddArea(snapshot.l1_offset, uint64_t{snapshot.l1_size} * 8);
    walk_.AddInactiveL1(snapshot.l1_offset, uint64_t{snapshot.l1_size} * 8);
  }
  co_return absl::OkStatus();
}

// Bitmaps count while the file says that they are valid. A program that did not know them may have
// given their clusters to others since, so that otherwise nothing can be learned from them.
Task<absl::Status> References::PrepareBitmaps() {
  if (!context_.header.bitmaps) co_return absl::OkStatus();
  if ((context_.header.autoclear & kAutoclearBitmaps) == 0) co_return absl::OkStatus();
  const BitmapsExtension directory = *context_.header.bitmaps;
  const uint64_t start = directory.directory_offset;
  if (!context_.TableFits(start) ||
      !FitsWithin(Range(start, directory.directory_size), {context_.file.size()})) {
    ReportUnknown(FindingKind::kBitmaps, start,
                  Wrong("the bitmap directory is not within the file"));
    co_return absl::OkStatus();
  }
  AddArea(start, directory.directory_size);
  ByteCursor cursor(context_.file, start, start + directory.directory_size);
  for (uint32_t i = 0; i < directory.count; ++i) {
    cursor.AlignTo8(start);
    const absl::Status status = co_await ReadBitmap(cursor);
    if (status.ok()) continue;
    ReportUnknown(FindingKind::kBitmaps, cursor.offset(), status);
    if (!absl::IsFailedPrecondition(status)) break;
  }
  co_return absl::OkStatus();
}

// kFailedPrecondition if only this bitmap cannot be used.
Task<absl::Status> References::ReadBitmap(ByteCursor& cursor) {
  CO_RETURN_IF_ERROR(co_await cursor.Take(kBitmapEntryBytes));
  const Bytes entry = cursor.bytes();
  const uint64_t offset = LoadBe64(&entry[kBitmapTableOffset]);
  const uint64_t entries = LoadBe32(&entry[kBitmapTableEntries]);
  const std::size_t name_size = LoadBe16(&entry[kBitmapNameSize]);
  const uint32_t extra_size = LoadBe32(&entry[kBitmapExtraSize]);
  if (extra_size > ByteCursor::kMaxPart) {
    co_return absl::OutOfRangeError("the bitmap directory ends early");
  }
  CO_RETURN_IF_ERROR(co_await cursor.Take(extra_size));
  CO_RETURN_IF_ERROR(co_await cursor.Take(name_size));
  if (offset == 0 || entries > kMaxBitmapTableEntries || context_.geometry.InCluster(offset) != 0 ||
      !FitsWithin(Range(offset, entries * 8), {context_.file.size()})) {
    co_return Wrong(absl::StrCat("bitmap table at ", offset, " with ", entries,
                                 " entries is not where one can be"));
  }
  AddArea(offset, entries * 8);
  bitmap_entries_.Add(offset, entries * 8);
  co_return absl::OkStatus();
}

Task<absl::Status> References::CountBitmaps(RefcountMap& map) {
  const std::vector<SweepRun> runs = bitmap_entries_.Runs();
  std::vector<std::byte> piece;
  for (const SweepRun& run : runs) {
    for (uint64_t done = 0; done < run.length; done += piece.size()) {
      piece.resize(std::min<uint64_t>(TableFile::kPiece, run.length - done));
      CO_RETURN_IF_ERROR(co_await context_.Pause());
      const absl::Status status = co_await context_.file.Read(run.offset + done, piece);
      if (!status.ok()) {
        context_.ReportUnreadable(run.offset + done, status);
        continue;
      }
      for (std::size_t at = 0; at < piece.size(); at += 8) {
        const uint64_t entry = LoadBe64(&piece[at]);
        const uint64_t offset = entry & kOffsetMask;
        if ((entry & kBitmapTableReserved) != 0 || (offset != 0 && (entry & 1) != 0) ||
            context_.geometry.InCluster(offset) != 0) {
          context_.Report(FindingKind::kBitmaps, run.offset + done + at, std::nullopt, [&] {
            return absl::StrCat("bitmap table entry ", absl::Hex(entry), " is not valid");
          });
        } else if (offset != 0) {
          Refer(map, offset, context_.geometry.cluster_size(), run.tables,
                RefcountMap::Use::kSingle, std::nullopt);
        }
      }
    }
  }
  co_return absl::OkStatus();
}

void References::Refer(RefcountMap& map, uint64_t offset, uint64_t length, uint64_t references,
                       RefcountMap::Use use, std::optional<uint64_t> guest) {
  const Geometry& geometry = context_.geometry;
  if (offset + length >= context_.file.size() + geometry.cluster_size()) {
    if (context_.found != nullptr) {
      context_.found->past_end = std::min(context_.found->past_end, offset);
    }
    context_.Report(FindingKind::kPastEnd, offset, guest, [&] {
      return absl::StrCat(length, " bytes at ", offset, " end past the end of the file");
    });
    return;
  }
  const uint64_t first = geometry.ClusterOf(offset);
  const uint64_t last = geometry.ClusterOf(offset + length - 1);
  const uint64_t size = context_.options.window_clusters;
  for (uint64_t window = first / size; window <= last / size; ++window) {
    windows_ |= uint64_t{1} << window;
  }
  const uint64_t to = std::min(last + 1, map.end());
  for (uint64_t cluster = std::max(first, map.first()); cluster < to; ++cluster) {
    map.Add(cluster, references, use);
  }
}

Task<absl::Status> References::Count(RefcountMap& map, const RefcountTables* refcounts) {
  const std::vector<SweepRun> areas = areas_.Runs();
  const uint64_t most = kMaxAreaClusters << context_.geometry.cluster_bits;
  for (const SweepRun& run : areas) {
    for (uint64_t done = 0; done < run.length; done += most) {
      CO_RETURN_IF_ERROR(co_await context_.Pause());
      Refer(map, run.offset + done, std::min(most, run.length - done), run.tables,
            RefcountMap::Use::kSingle, std::nullopt);
    }
  }
  if (refcounts != nullptr) CO_RETURN_IF_ERROR(co_await refcounts->AddReferences(*this, map));
  CO_RETURN_IF_ERROR(co_await CountBitmaps(map));
  ReferenceVisitor visitor(context_, *this, map);
  const absl::Status status = co_await walk_.Walk(visitor, WalkScope::kAll);
  co_return status;
}

}  // namespace gabion::qcow2
