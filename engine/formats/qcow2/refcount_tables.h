// The refcount table of a file and its blocks: what is stored, against what was counted.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "engine/formats/qcow2/check_context.h"
#include "engine/formats/qcow2/refcount_map.h"
#include "engine/runtime/task.h"

namespace gabion::qcow2 {

class References;

// Owned by the check; for files whose refcount table does not move. Holds the table, at most 8 MiB.
class RefcountTables {
 public:
  explicit RefcountTables(CheckContext& context) : context_(context) {}

  // Reads the table; reports entries that cannot be right. Once, first.
  Task<absl::Status> Load();

  // The clusters of the table and the blocks themselves.
  Task<absl::Status> AddReferences(References& references, RefcountMap& map) const;

  // Bit n: a block has refcounts of the n-th window.
  uint64_t windows() const { return windows_; }

  // Reports differences between what `map` has counted and what is stored. Afterwards `map` has
  // what is stored.
  Task<absl::Status> Compare(RefcountMap& map);
  // Makes `map`, which was just reset, have what is stored.
  Task<absl::Status> ReadInto(RefcountMap& map);
  // Stores what was counted, where that is more than what is stored and `raise` is set, or less and
  // `lower` is. REQUIRES: blocks are not used for anything else.
  Task<absl::Status> Store(const RefcountMap& map, bool raise, bool lower);

 private:
  // What is looked at without a pause: refcounts of [first, first + count) at `offset`.
  struct Stretch {
    uint64_t first = 0;
    uint64_t count = 0;
    uint64_t offset = 0;  // 0: there is no block
    bool broken = false;  // there is an entry, but no block can be where it says
  };

  bool Usable(uint64_t entry) const;
  void JudgeEntry(uint64_t place, uint64_t entry);
  void NoteWindows();
  uint64_t StretchClusters() const;
  Stretch StretchAt(uint64_t cluster, uint64_t end) const;
  Task<absl::Status> ReadStretch(const Stretch& stretch, std::vector<std::byte>& bytes);
  void Judge(uint64_t cluster, uint64_t stored, RefcountMap& map);
  void NoteShared(uint64_t cluster, const RefcountMap& map);
  Task<absl::Status> JudgeStructure(const RefcountMap& map);

  CheckContext& context_;
  std::vector<uint64_t> entries_;
  uint64_t windows_ = 0;
};

}  // namespace gabion::qcow2
