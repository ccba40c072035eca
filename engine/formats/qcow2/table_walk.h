// Walks the mapping tables of an image: the active L1 table, those of snapshots, and every L2 table
// once.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "engine/formats/qcow2/check_context.h"
#include "engine/formats/qcow2/l2_batch.h"
#include "engine/formats/qcow2/table_sweep.h"
#include "engine/runtime/task.h"

namespace gabion::qcow2 {

// What is done with the entries. Owned by a pass; called by TableWalk.
class TableVisitor {
 public:
  virtual ~TableVisitor() = default;

  // Entry `index` of the active L1 table, not zero. True if `entry` was changed.
  virtual bool VisitActiveL1(uint32_t index, uint64_t& entry) = 0;
  // An entry, not zero, of the L1 tables of `tables` snapshots, at `at` in the file.
  virtual void VisitInactiveL1(uint64_t at, uint64_t entry, uint64_t tables) = 0;
  // An L2 table is about to be read. False: leave it out.
  virtual bool BeginL2(const L2Table& table) = 0;
  // Its entry `index`; not all bits are zero. `bitmap` is 0 without extended entries. True if they
  // were changed.
  virtual bool VisitL2(const L2Table& table, uint64_t index, uint64_t& entry, uint64_t& bitmap) = 0;
};

// A plain value: which tables.
enum class WalkScope : uint8_t { kAll, kActive };

// Owned by the check. What visitors change is written where it was read; entries that point
// nowhere valid are shown to visitors and not followed.
class TableWalk {
 public:
  explicit TableWalk(CheckContext& context) : context_(context) {}

  // The L1 table of a snapshot, which lies within the file.
  void AddInactiveL1(uint64_t offset, uint64_t bytes) { inactive_.Add(offset, bytes); }

  // Shows everything to `visitor`. Parts that cannot be read are reported and left out.
  Task<absl::Status> Walk(TableVisitor& visitor, WalkScope scope);

 private:
  Task<absl::Status> CollectActive(L2Batch& batch, TableVisitor* visitor);
  Task<absl::Status> CollectInactive(L2Batch& batch, TableVisitor* visitor);
  Task<absl::Status> WalkL2(const L2Table& table, TableVisitor& visitor);
  bool ShowL2(const L2Table& table, uint64_t first, MutableBytes piece, TableVisitor& visitor);
  void Collect(uint64_t entry, uint64_t tables, uint32_t l1_index, L2Batch& batch);

  CheckContext& context_;
  TableSweep inactive_;
};

}  // namespace gabion::qcow2
