// The status values that clients are told, and how the atoms that meet one unit become one value.
//
// A unit is a range [k * G, (k + 1) * G) of the granule G. Nodes answer byte-exact atoms; merging
// them loses precision, and each operator loses it on the side that is safe for its readers (status
// rules, sections 3 and 4). Merging happens at the border to clients only: jobs work on atoms.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/base/units.h"
#include "engine/block/extent.h"

namespace gabion::block {

// Bits of the NBD context base:allocation.
inline constexpr uint64_t kStatusHole = 1;
inline constexpr uint64_t kStatusZero = 2;

enum class MergeOperator : uint8_t {
  // base:allocation. Bitwise AND, then HOLE only together with ZERO: hole means hole everywhere,
  // zero means zero everywhere.
  kAllocation,
  // Topmost layer that touches the unit; 0 if none does. Safe for "copy what this layer holds".
  kDepthMin,
  // Deepest layer that touches the unit, where unallocated counts as one below the last layer; 0 if
  // no layer touches it. Safe for "does this still need its backing image".
  kDepthMax,
  // Bitwise OR: dirty bitmaps. Clean is a promise about every byte.
  kAny,
};

// base:allocation of one atom.
uint64_t AllocationValue(ExtentKind kind);

// What the merger for `op` is fed for `extent` in a chain of `layers` layers. REQUIRES: `op` is not
// kAny, whose values do not come from extents.
uint64_t AtomValue(MergeOperator op, const Extent& extent, uint32_t layers);

// A run of bytes with one merged value.
struct StatusRun {
  uint64_t length = 0;
  uint64_t status = 0;
  friend bool operator==(const StatusRun&, const StatusRun&) = default;
};

// Merges consecutive atoms, which start on a multiple of the granule, unit by unit, and collects
// runs of units of equal value. Costs O(1) per atom however long it is. A plain value.
class UnitMerger {
 public:
  // REQUIRES: `granule` is a power of two. `layers` is the `n` of the depth operators.
  UnitMerger(MergeOperator op, ByteCount granule, uint32_t layers);

  void Add(ByteCount length, uint64_t value);
  // Bytes that no image has: the identity of the operator (status rule S-27). A unit of nothing
  // else is an unallocated, clean hole.
  void AddPadding(ByteCount length);
  // Ends the last unit where the input ends. Nothing is added afterwards.
  void Finish();

  // Bytes in complete units so far: the sum over runs().
  ByteCount complete() const { return complete_; }
  const std::vector<StatusRun>& runs() const { return runs_; }

 private:
  struct Accumulator {
    uint64_t low = ~uint64_t{0};  // AND or minimum
    uint64_t high = 0;            // OR or maximum
  };

  Accumulator Combine(Accumulator a, Accumulator b) const;
  uint64_t StatusOf(Accumulator unit) const;
  void Advance(uint64_t length, Accumulator atom);
  void Emit(uint64_t length, Accumulator unit);

  const MergeOperator op_;
  const uint64_t granule_;
  const uint64_t below_all_layers_;
  Accumulator unit_;     // of the unit that is not complete yet
  uint64_t filled_ = 0;  // its bytes so far
  ByteCount complete_{0};
  std::vector<StatusRun> runs_;
};

}  // namespace gabion::block
