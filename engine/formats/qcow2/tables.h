// The metadata of an open qcow2 image: what every part of the node works on.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/btree_set.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "engine/base/units.h"
#include "engine/formats/qcow2/geometry.h"
#include "engine/formats/qcow2/header.h"
#include "engine/formats/qcow2/slice_cache.h"
#include "engine/io/file.h"
#include "engine/runtime/ready_queue.h"
#include "engine/runtime/task.h"

namespace gabion::qcow2 {

// What a host cluster that is not guest data holds.
enum class Metadata : uint8_t {
  kHeader,
  kL1,
  kL2,
  kRefcountTable,
  kRefcountBlock,
  kSnapshots,  // their table, and their L1 tables
};

// For people: "the refcount table".
std::string_view NameOf(Metadata metadata);

inline constexpr std::size_t kSectorBytes = 512;

// What the image says contradicts itself: kDataLoss with the reason IMAGE_CORRUPT. Errors of the
// file are something else.
absl::Status Damage(std::string_view what);
bool IsDamage(const absl::Status& status);

// Writes them all at the same time.
Task<absl::Status> WriteRuns(io::File& file, const std::vector<SliceRun>& runs);

// The image's tables in memory, and which of them the file does not have yet. Owned by the node,
// used on its shard. Offsets are bytes in the file, clusters are counted from its start.
struct Tables {
  Tables(io::File& file_in, runtime::ReadyQueue& ready_in, Header header_in, std::string name_in,
         ByteCount cache_bytes, CacheBudget& budget);

  // Loads the L1 table, the refcount table and the snapshot table's place, with the checks of
  // opening. Call first; again before the first change, while nothing is dirty.
  Task<absl::Status> Load(Access access);

  bool IsMetadata(uint64_t host_offset) const {
    return metadata.contains(geometry.ClusterOf(host_offset));
  }
  void SetMetadata(Metadata kind, uint64_t host_offset, uint64_t bytes);
  void ForgetMetadata(uint64_t host_offset, uint64_t bytes);

  // The place of L2 entry `l2_index` of the table at `table`, in the file.
  uint64_t L2EntryOffset(uint64_t table, uint64_t l2_index) const {
    return table + (l2_index << geometry.l2_entry_bits());
  }
  uint64_t L1Index(uint64_t guest_offset) const {
    return guest_offset >> (geometry.cluster_bits + geometry.l2_bits());
  }
  uint64_t L2Index(uint64_t guest_offset) const {
    return geometry.ClusterOf(guest_offset) & (geometry.l2_entries() - 1);
  }

  // Writes the header's first sector with its fields as they are in `header` now; durable. One
  // sector, so that a crash leaves the old one or the new one. If that fails, nobody knows which
  // one is in the file, and nothing more is written.
  Task<absl::Status> WriteHeader();

  // Notes that the image contradicts itself: writes are refused from now on, and the file says so.
  // Gives the error for whoever found it: kDataLoss, with the reason IMAGE_CORRUPT.
  Task<absl::Status> MarkCorrupt(const std::string& what);

  io::File& file;
  runtime::ReadyQueue& ready;
  Header header;
  const Geometry geometry;
  const std::string name;

  std::vector<uint64_t> l1;              // entries with their flags
  std::vector<uint64_t> refcount_table;  // offsets of refcount blocks; 0: none
  SliceCache l2;
  SliceCache refcounts;

  absl::btree_map<uint64_t, uint64_t> dirty_l1;    // indexes, and the entry that the file has
  absl::btree_set<uint64_t> dirty_refcount_table;  // indexes
  absl::flat_hash_set<uint64_t> new_l2;  // offsets of tables that the L1 in the file lacks

  absl::flat_hash_map<uint64_t, Metadata> metadata;  // by cluster
  // Where the file ends, or will end when what has been allocated is written; a whole cluster.
  uint64_t end = 0;
  void NoteEnd(uint64_t offset) {
    end = std::max(end, geometry.Clusters(offset) << geometry.cluster_bits);
  }
  std::vector<std::string> warnings;  // of opening, for people
  absl::Status unwritable;            // an error: nothing is written any more, and why

 private:
  Task<absl::StatusOr<std::vector<uint64_t>>> LoadTable(uint64_t offset, uint64_t entries);
  absl::Status NoteTables();

  std::array<std::byte, kSectorBytes> sector_{};  // the file's first bytes
};

}  // namespace gabion::qcow2
