// What is set right in L1 and L2 tables.
#pragma once

#include <cstdint>

#include "engine/formats/qcow2/check_context.h"
#include "engine/formats/qcow2/refcount_map.h"
#include "engine/formats/qcow2/table_walk.h"

namespace gabion::qcow2 {

// A pass that may write entries, but not in tables that something else uses, too. Owned by the
// check, like what it refers to.
class TableRepair : public TableVisitor {
 protected:
  // `known`: what an inspection has found. Null: nothing is written.
  TableRepair(CheckContext& context, const Inspection* known) : context_(context), known_(known) {}

  bool BeginL2(const L2Table& table) override;
  void VisitInactiveL1(uint64_t, uint64_t, uint64_t) override {}
  bool may_write_l1() const { return known_ != nullptr && !known_->active_l1_shared; }
  bool may_write_l2() const { return known_ != nullptr; }

  CheckContext& context_;

 private:
  const Inspection* const known_;
};

// The flags that say "refcount is 1", in the active tables, against the refcounts in `map`; only
// those of clusters that it holds. Reports those that are wrong while something is inspected, and
// sets them right if it may write.
class CopiedFlags final : public TableRepair {
 public:
  CopiedFlags(CheckContext& context, const RefcountMap& map, const Inspection* known)
      : TableRepair(context, known), map_(map) {}

  bool VisitActiveL1(uint32_t index, uint64_t& entry) override;
  bool VisitL2(const L2Table& table, uint64_t index, uint64_t& entry, uint64_t& bitmap) override;

 private:
  bool Judge(uint64_t offset, uint64_t guest, uint64_t& entry);

  const RefcountMap& map_;
};

// Entries that can be set right by themselves and mean the same afterwards: misplaced zero
// clusters, and compressed clusters with a flag that says nothing about them.
class EntryMender final : public TableRepair {
 public:
  EntryMender(CheckContext& context, const Inspection& known) : TableRepair(context, &known) {}

  bool VisitActiveL1(uint32_t, uint64_t&) override { return false; }
  bool VisitL2(const L2Table& table, uint64_t index, uint64_t& entry, uint64_t& bitmap) override;
};

}  // namespace gabion::qcow2
