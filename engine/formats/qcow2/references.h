// Everything in an image that refers to clusters of the file.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "engine/formats/qcow2/check_context.h"
#include "engine/formats/qcow2/refcount_map.h"
#include "engine/formats/qcow2/refcount_tables.h"
#include "engine/formats/qcow2/table_sweep.h"
#include "engine/formats/qcow2/table_walk.h"
#include "engine/runtime/task.h"

namespace gabion::qcow2 {

// Owned by the check. Knows after Prepare() where the tables of snapshots and bitmaps are.
class References {
 public:
  References(CheckContext& context, TableWalk& walk) : context_(context), walk_(walk) {}

  // Reads the tables of tables. Once, first.
  Task<absl::Status> Prepare();

  // Adds all references to clusters that `map` holds to it; those of the refcount table and its
  // blocks too unless `refcounts` is null. Sets the bits of windows() of clusters that were
  // referred to.
  Task<absl::Status> Count(RefcountMap& map, const RefcountTables* refcounts);

  // Bit n: something refers to the n-th window of CheckOptions::window_clusters clusters.
  uint64_t windows() const { return windows_; }

  // For what counts: `references` to each cluster of [offset, offset + length), which is reported
  // instead if it ends a cluster or more behind the end of the file.
  void Refer(RefcountMap& map, uint64_t offset, uint64_t length, uint64_t references,
             RefcountMap::Use use, std::optional<uint64_t> guest);

 private:
  Task<absl::Status> PrepareSnapshots();
  Task<absl::Status> PrepareBitmaps();
  Task<absl::Status> ReadBitmap(class ByteCursor& cursor);
  Task<absl::Status> CountBitmaps(RefcountMap& map);
  // A table that has its clusters for itself.
  void AddArea(uint64_t offset, uint64_t length);
  void ReportUnknown(FindingKind kind, uint64_t offset, const absl::Status& status);

  CheckContext& context_;
  TableWalk& walk_;
  TableSweep areas_;           // whole clusters
  TableSweep bitmap_entries_;  // entries of bitmap tables
  uint64_t windows_ = 0;
};

}  // namespace gabion::qcow2
