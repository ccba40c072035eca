// The table of internal snapshots, as it lies in the file.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/base/units.h"
#include "engine/formats/qcow2/header.h"
#include "engine/formats/qcow2/table_file.h"
#include "engine/io/file.h"
#include "engine/runtime/task.h"

namespace gabion::qcow2 {

// A plain value.
struct Snapshot {
  std::string id;    // unique; QEMU writes decimal numbers
  std::string name;  // any bytes
  uint64_t l1_offset = 0;
  uint32_t l1_size = 0;       // entries
  uint32_t date_seconds = 0;  // since 1970
  uint32_t date_nanoseconds = 0;
  uint64_t vm_clock_nanoseconds = 0;
  uint64_t vm_state_size = 0;         // bytes
  std::optional<uint64_t> disk_size;  // bytes; may differ from the disk's size now
  std::optional<uint64_t> instructions;
  std::vector<std::byte> more_extra;  // extra data behind these, as it is

  // Why the snapshot cannot be used: its L1 table is not where one can be. Empty if it can.
  std::string damage;
};

// A plain value.
struct SnapshotTable {
  std::vector<Snapshot> snapshots;
  uint64_t bytes = 0;                 // of the table in the file
  std::vector<std::string> warnings;  // what was let pass, for people
};

// Bytes of an entry in front of its extra data, id and name.
inline constexpr std::size_t kSnapshotEntryBytes = 40;

// Reads and checks the snapshot table of an image. Reading for Access::kReadWrite fails with
// kFailedPrecondition, naming the field, if the table or the L1 table of a snapshot is too large,
// not aligned or past the end of the file. For Access::kRead there is a warning instead: a table
// that cannot be read has no snapshots, and a snapshot that cannot be used has `damage`. Takes
// memory in proportion to what the file holds, at most 64 MiB of names.
//
// `file` outlives the task and is used on its shard; `header` comes from ParseHeader().
Task<absl::StatusOr<SnapshotTable>> LoadSnapshots(io::File& file, const Header& header,
                                                  Access access);

// The same without a verdict about writing: fails if the table cannot be read as one; snapshots
// that cannot be used have `damage`.
Task<absl::Status> ReadSnapshotTable(TableFile& file, const Header& header, SnapshotTable& table);

}  // namespace gabion::qcow2
