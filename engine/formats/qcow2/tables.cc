#include "engine/formats/qcow2/tables.h"

#include <algorithm>
#include <cstring>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/bytes.h"
#include "engine/base/reason.h"
#include "engine/base/status_macros.h"
#include "engine/base/text.h"
#include "engine/formats/qcow2/snapshots.h"

namespace gabion::qcow2 {
namespace {

constexpr uint32_t kSliceBytes = 4096;

uint32_t SliceBytes(const Header& header) {
  return static_cast<uint32_t>(std::min<uint64_t>(header.cluster_size(), kSliceBytes));
}

// Refcounts get a quarter of an image's cache: they are looked at in order.
ByteCount RefcountShare(ByteCount bytes) { return {bytes.value / 4}; }

}  // namespace

std::string_view NameOf(Metadata metadata) {
  switch (metadata) {
    case Metadata::kHeader:
      return "the header";
    case Metadata::kL1:
      return "the active L1 table";
    case Metadata::kL2:
      return "an L2 table";
    case Metadata::kRefcountTable:
      return "the refcount table";
    case Metadata::kRefcountBlock:
      return "a refcount block";
    case Metadata::kSnapshots:
      return "the snapshots";
  }
  return "metadata";
}

Tables::Tables(io::File& file_in, runtime::ReadyQueue& ready_in, Header header_in,
               std::string name_in, ByteCount cache_bytes, CacheBudget& budget)
    : file(file_in),
      ready(ready_in),
      header(std::move(header_in)),
      geometry(header),
      name(std::move(name_in)),
      l2(file_in, ready_in, SliceBytes(header), cache_bytes - RefcountShare(cache_bytes), budget),
      refcounts(file_in, ready_in, SliceBytes(header), RefcountShare(cache_bytes), budget),
      end(geometry.Clusters(file_in.size().value) << geometry.cluster_bits) {}

Task<absl::StatusOr<std::vector<uint64_t>>> Tables::LoadTable(uint64_t offset, uint64_t entries) {
  std::vector<std::byte> bytes(entries * sizeof(uint64_t));
  CO_RETURN_IF_ERROR(co_await file.Read(ByteOffset{offset}, bytes));
  std::vector<uint64_t> table(entries);
  for (uint64_t i = 0; i < entries; ++i) table[i] = LoadBe64(bytes.data() + i * sizeof(uint64_t));
  co_return table;
}

Task<absl::Status> Tables::Load(Access access) {
  const MutableBytes sector(sector_);
  CO_RETURN_IF_ERROR(co_await file.Read(ByteOffset{0}, sector));
  CO_ASSIGN_OR_RETURN(l1, co_await LoadTable(header.l1_offset, header.l1_size));
  const uint64_t entries =
      (uint64_t{header.refcount_table_clusters} << geometry.cluster_bits) / sizeof(uint64_t);
  CO_ASSIGN_OR_RETURN(refcount_table, co_await LoadTable(header.refcount_table_offset, entries));
  const absl::Status noted = NoteTables();
  if (!noted.ok() && access == Access::kReadWrite) co_return noted;
  if (!noted.ok()) warnings.push_back(std::string(noted.message()));
  CO_ASSIGN_OR_RETURN(const SnapshotTable snapshots, co_await LoadSnapshots(file, header, access));
  if (snapshots.bytes > 0) {
    SetMetadata(Metadata::kSnapshots, header.snapshots_offset, snapshots.bytes);
  }
  for (const Snapshot& snapshot : snapshots.snapshots) {
    if (!snapshot.damage.empty()) continue;
    SetMetadata(Metadata::kSnapshots, snapshot.l1_offset, snapshot.l1_size * sizeof(uint64_t));
  }
  if (access == Access::kRead) {
    warnings.insert(warnings.end(), snapshots.warnings.begin(), snapshots.warnings.end());
  }
  co_return absl::OkStatus();
}

void Tables::SetMetadata(Metadata kind, uint64_t host_offset, uint64_t bytes) {
  const uint64_t first = geometry.ClusterOf(host_offset);
  for (uint64_t i = 0; i < geometry.Clusters(bytes); ++i) metadata.try_emplace(first + i, kind);
}

void Tables::ForgetMetadata(uint64_t host_offset, uint64_t bytes) {
  const uint64_t first = geometry.ClusterOf(host_offset);
  for (uint64_t i = 0; i < geometry.Clusters(bytes); ++i) metadata.erase(first + i);
}

// Entries that point nowhere sensible are found when they are used. What matters here is that no
// write of data lands on a table; a table that lies on another one is found when it is written.
absl::Status Tables::NoteTables() {
  metadata.clear();
  SetMetadata(Metadata::kHeader, 0, geometry.cluster_size());
  SetMetadata(Metadata::kL1, header.l1_offset, l1.size() * sizeof(uint64_t));
  SetMetadata(Metadata::kRefcountTable, header.refcount_table_offset,
              refcount_table.size() * sizeof(uint64_t));
  uint64_t beyond = 0;
  for (uint64_t& entry : refcount_table) {
    entry &= ~kRefcountTableReserved;
    if (entry == 0) continue;
    if (geometry.InCluster(entry) != 0 || entry >= kMaxHostOffset) continue;
    SetMetadata(Metadata::kRefcountBlock, entry, geometry.cluster_size());
    if (entry >= file.size().value) ++beyond;
  }
  for (const uint64_t entry : l1) {
    const uint64_t table = entry & kOffsetMask;
    if (table == 0 || geometry.InCluster(table) != 0) continue;
    SetMetadata(Metadata::kL2, table, geometry.cluster_size());
  }
  if (beyond == 0) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(beyond, " refcount blocks lie past the end of the file"));
}

Task<absl::Status> Tables::WriteHeader() {
  std::byte* const at = sector_.data();
  StoreBe64(at + kSizeField, header.size);
  StoreBe32(at + kL1SizeField, header.l1_size);
  StoreBe64(at + kL1OffsetField, header.l1_offset);
  StoreBe64(at + kRefcountTableOffsetField, header.refcount_table_offset);
  StoreBe32(at + kRefcountTableClustersField, header.refcount_table_clusters);
  StoreBe32(at + kSnapshotCountField, header.snapshot_count);
  StoreBe64(at + kSnapshotsOffsetField, header.snapshots_offset);
  if (header.version >= 3) {
    StoreBe64(at + kIncompatibleField, header.incompatible);
    StoreBe64(at + kCompatibleField, header.compatible);
    StoreBe64(at + kAutoclearField, header.autoclear);
  }
  const Bytes bytes(sector_);
  absl::Status status = co_await file.Write(ByteOffset{0}, bytes, false);
  if (status.ok()) status = co_await file.Sync();
  if (!status.ok()) unwritable = Annotate(status, "the header could not be written");
  co_return status;
}

Task<absl::Status> Tables::MarkCorrupt(const std::string& what) {
  if (!unwritable.ok()) co_return unwritable;
  unwritable = WithReason(absl::DataLossError(absl::StrCat("the image is corrupt: ", what)),
                          {"IMAGE_CORRUPT", {{"image", name}}});
  const absl::Status error = unwritable;
  if (file.writable() && header.version >= 3) {
    header.incompatible |= kIncompatibleCorrupt;
    const absl::Status written = co_await WriteHeader();
    if (!written.ok()) warnings.push_back(absl::StrCat("not marked corrupt: ", written.message()));
    unwritable = error;
  }
  co_return error;
}

absl::Status Damage(std::string_view what) {
  return WithReason(absl::DataLossError(AsAbsl(what)), {"IMAGE_CORRUPT", {}});
}

bool IsDamage(const absl::Status& status) {
  const std::optional<Reason> reason = ReasonOf(status);
  return reason.has_value() && reason->reason == "IMAGE_CORRUPT";
}

Task<absl::Status> WriteRuns(io::File& file, const std::vector<SliceRun>& runs) {
  std::vector<Task<absl::Status>> writes;
  writes.reserve(runs.size());
  for (const SliceRun& run : runs) {
    writes.push_back(file.Write(ByteOffset{run.offset}, Bytes(run.bytes), false));
  }
  absl::Status status;
  for (Task<absl::Status>& write : writes) {
    const absl::Status written = co_await write;
    status.Update(written);
  }
  co_return status;
}

}  // namespace gabion::qcow2
