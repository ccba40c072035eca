// Judges the entries of L1 and L2 tables, and counts what they refer to.
#pragma once

#include <cstdint>
#include <optional>

#include "engine/formats/qcow2/check_context.h"
#include "engine/formats/qcow2/refcount_map.h"
#include "engine/formats/qcow2/table_walk.h"

namespace gabion::qcow2 {

class References;

// True if a preallocated zero cluster, which lies where no cluster can, may become one without a
// place: it reads the same.
bool IsMisplacedZero(const Geometry& geometry, uint64_t entry, uint64_t bitmap);

// Owned by one pass of the check. Changes nothing.
class ReferenceVisitor final : public TableVisitor {
 public:
  ReferenceVisitor(CheckContext& context, References& references, RefcountMap& map)
      : context_(context), references_(references), map_(map) {}

  bool VisitActiveL1(uint32_t index, uint64_t& entry) override;
  void VisitInactiveL1(uint64_t at, uint64_t entry, uint64_t tables) override;
  bool BeginL2(const L2Table& table) override;
  bool VisitL2(const L2Table& table, uint64_t index, uint64_t& entry, uint64_t& bitmap) override;

 private:
  void JudgeL1(uint64_t entry, uint64_t tables, uint64_t at, std::optional<uint64_t> guest);
  void CountCompressed(const L2Table& table, uint64_t entry, uint64_t bitmap,
                       std::optional<uint64_t> guest);
  void CountPlain(const L2Table& table, uint64_t entry, std::optional<uint64_t> guest);
  void JudgeBits(uint64_t entry, uint64_t bitmap, std::optional<uint64_t> guest);
  std::optional<uint64_t> Guest(const L2Table& table, uint64_t index) const;

  CheckContext& context_;
  References& references_;
  RefcountMap& map_;
  uint64_t expected_ = 0;  // where the next cluster of this table would follow the last one
};

}  // namespace gabion::qcow2
