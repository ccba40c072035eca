#include "engine/formats/qcow2/snapshots.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/align.h"
#include "engine/base/bytes.h"
#include "engine/base/reason.h"
#include "engine/base/status_macros.h"
#include "engine/formats/qcow2/byte_cursor.h"
#include "engine/formats/qcow2/geometry.h"
#include "engine/formats/qcow2/layout.h"
#include "engine/formats/qcow2/table_file.h"

namespace gabion::qcow2 {
namespace {

// Offsets of an entry's fields.
constexpr std::size_t kL1Offset = 0;
constexpr std::size_t kL1Size = 8;
constexpr std::size_t kIdSize = 12;
constexpr std::size_t kNameSize = 14;
constexpr std::size_t kDateSeconds = 16;
constexpr std::size_t kDateNanoseconds = 20;
constexpr std::size_t kVmClock = 24;
constexpr std::size_t kVmStateSize = 32;
constexpr std::size_t kExtraSize = 36;
// Of the extra data.
constexpr std::size_t kExtraVmState = 0;
constexpr std::size_t kExtraDiskSize = 8;
constexpr std::size_t kExtraInstructions = 16;
constexpr std::size_t kExtraKnown = 24;

absl::Status Wrong(std::string what) { return absl::FailedPreconditionError(std::move(what)); }

absl::Status CheckPlace(const Header& header, uint64_t file_size) {
  const Geometry geometry(header);
  if (header.snapshot_count > kMaxSnapshots) {
    return Wrong(absl::StrCat("snapshot table: ", header.snapshot_count, " snapshots; at most ",
                              kMaxSnapshots));
  }
  if (header.snapshots_offset == 0 || geometry.InCluster(header.snapshots_offset) != 0) {
    return Wrong(absl::StrCat("snapshot table offset ", header.snapshots_offset,
                              " is not a multiple of the cluster size above 0"));
  }
  const uint64_t least = uint64_t{header.snapshot_count} * kSnapshotEntryBytes;
  if (!FitsWithin(Range(header.snapshots_offset, least), {file_size})) {
    return Wrong(absl::StrCat("snapshot table offset ", header.snapshots_offset,
                              ": the table lies past the end of the file"));
  }
  return absl::OkStatus();
}

// Why the L1 table of `snapshot` cannot be one; empty if it can.
std::string DamageOf(const Snapshot& snapshot, const Header& header, uint64_t file_size) {
  const uint64_t bytes = uint64_t{snapshot.l1_size} * 8;
  if (bytes > kMaxL1Bytes) return absl::StrCat("L1 table too large: ", bytes, " bytes");
  if (Geometry(header).InCluster(snapshot.l1_offset) != 0) {
    return absl::StrCat("L1 table offset ", snapshot.l1_offset,
                        " is not a multiple of the cluster size");
  }
  if (!FitsWithin(Range(snapshot.l1_offset, bytes), {file_size})) {
    return absl::StrCat("L1 table offset ", snapshot.l1_offset,
                        ": the table lies past the end of the file");
  }
  return {};
}

void ParseExtra(Bytes extra, Snapshot& snapshot) {
  const auto has = [&](std::size_t field) { return extra.size() >= field + 8; };
  if (has(kExtraVmState)) snapshot.vm_state_size = LoadBe64(&extra[kExtraVmState]);
  if (has(kExtraDiskSize)) snapshot.disk_size = LoadBe64(&extra[kExtraDiskSize]);
  if (has(kExtraInstructions)) snapshot.instructions = LoadBe64(&extra[kExtraInstructions]);
  if (extra.size() <= kExtraKnown) return;
  snapshot.more_extra.assign(extra.begin() + kExtraKnown, extra.end());
}

Task<absl::Status> ReadEntry(ByteCursor& cursor, const Header& header, Snapshot& snapshot) {
  CO_RETURN_IF_ERROR(co_await cursor.Take(kSnapshotEntryBytes));
  const Bytes entry = cursor.bytes();
  snapshot.l1_offset = LoadBe64(&entry[kL1Offset]);
  snapshot.l1_size = LoadBe32(&entry[kL1Size]);
  snapshot.date_seconds = LoadBe32(&entry[kDateSeconds]);
  snapshot.date_nanoseconds = LoadBe32(&entry[kDateNanoseconds]);
  snapshot.vm_clock_nanoseconds = LoadBe64(&entry[kVmClock]);
  snapshot.vm_state_size = LoadBe32(&entry[kVmStateSize]);
  const uint16_t id_size = LoadBe16(&entry[kIdSize]);
  const uint16_t name_size = LoadBe16(&entry[kNameSize]);
  const uint32_t extra_size = LoadBe32(&entry[kExtraSize]);
  if (extra_size > kMaxSnapshotExtraBytes) {
    co_return Wrong(absl::StrCat("snapshot extra data: ", extra_size, " bytes; at most ",
                                 kMaxSnapshotExtraBytes));
  }
  CO_RETURN_IF_ERROR(co_await cursor.Take(extra_size));
  ParseExtra(cursor.bytes(), snapshot);
  if (header.version >= 3 && !snapshot.disk_size) {
    co_return Wrong(
        absl::StrCat("snapshot extra data: ", extra_size, " bytes; version 3 needs at least 16"));
  }
  CO_RETURN_IF_ERROR(co_await cursor.Take(id_size));
  snapshot.id = std::string(AsText(cursor.bytes()));
  CO_RETURN_IF_ERROR(co_await cursor.Take(name_size));
  snapshot.name = std::string(AsText(cursor.bytes()));
  co_return absl::OkStatus();
}

}  // namespace

Task<absl::Status> ReadSnapshotTable(TableFile& file, const Header& header, SnapshotTable& table) {
  CO_RETURN_IF_ERROR(CheckPlace(header, file.size()));
  const uint64_t start = header.snapshots_offset;
  const uint64_t room = file.size() - start;
  const bool cut = room > kMaxSnapshotTableBytes;
  ByteCursor cursor(file, start, start + (cut ? kMaxSnapshotTableBytes : room));
  for (uint32_t i = 0; i < header.snapshot_count; ++i) {
    cursor.AlignTo8(start);
    Snapshot snapshot;
    const absl::Status status = co_await ReadEntry(cursor, header, snapshot);
    if (absl::IsOutOfRange(status)) {
      co_return Wrong(
          cut ? absl::StrCat("snapshot table: more than ", kMaxSnapshotTableBytes, " bytes")
              : absl::StrCat("snapshot table: snapshot ", i, " lies past the end of the file"));
    }
    if (!status.ok()) co_return Annotate(status, absl::StrCat("snapshot ", i));
    snapshot.damage = DamageOf(snapshot, header, file.size());
    table.snapshots.push_back(std::move(snapshot));
    table.bytes = cursor.offset() - start;
  }
  co_return absl::OkStatus();
}

Task<absl::StatusOr<SnapshotTable>> LoadSnapshots(io::File& io_file, const Header& header,
                                                  Access access) {
  SnapshotTable table;
  if (header.snapshot_count == 0) co_return table;
  TableFile file(io_file);
  const absl::Status status = co_await ReadSnapshotTable(file, header, table);
  if (!status.ok()) {
    if (access == Access::kReadWrite || !absl::IsFailedPrecondition(status)) co_return status;
    SnapshotTable none;
    none.warnings.push_back(absl::StrCat("no snapshots: ", status.message()));
    co_return none;
  }
  for (const Snapshot& snapshot : table.snapshots) {
    if (snapshot.damage.empty()) continue;
    std::string text = absl::StrCat("snapshot ", snapshot.id, ": ", snapshot.damage);
    if (access == Access::kReadWrite) co_return Wrong(std::move(text));
    table.warnings.push_back(std::move(text));
  }
  co_return table;
}

}  // namespace gabion::qcow2
