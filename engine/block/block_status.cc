#include "engine/block/block_status.h"

#include <algorithm>

#include "engine/base/align.h"
#include "engine/base/check.h"

namespace gabion::block {

uint64_t AllocationValue(ExtentKind kind) {
  switch (kind) {
    case ExtentKind::kData:
      return 0;
    case ExtentKind::kZeroAllocated:
      return kStatusZero;
    case ExtentKind::kZero:
    case ExtentKind::kUnallocated:
      return kStatusHole | kStatusZero;
  }
  return 0;
}

uint64_t AtomValue(MergeOperator op, const Extent& extent, uint32_t layers) {
  CHECK(op != MergeOperator::kAny);
  if (op == MergeOperator::kAllocation) return AllocationValue(extent.kind);
  if (extent.kind == ExtentKind::kUnallocated) return uint64_t{layers} + 1;
  return extent.layer;
}

UnitMerger::UnitMerger(MergeOperator op, ByteCount granule, uint32_t layers)
    : op_(op), granule_(granule.value), below_all_layers_(uint64_t{layers} + 1) {
  CHECK(IsPowerOfTwo(granule_));
}

UnitMerger::Accumulator UnitMerger::Combine(Accumulator a, Accumulator b) const {
  if (op_ == MergeOperator::kDepthMin || op_ == MergeOperator::kDepthMax) {
    return {std::min(a.low, b.low), std::max(a.high, b.high)};
  }
  return {a.low & b.low, a.high | b.high};
}

uint64_t UnitMerger::StatusOf(Accumulator unit) const {
  switch (op_) {
    case MergeOperator::kAllocation:
      // Never a hole alone: that would mean unknown content (status rule S-7).
      return (unit.low & kStatusZero) == 0 ? 0 : unit.low & (kStatusHole | kStatusZero);
    case MergeOperator::kAny:
      return unit.high;
    case MergeOperator::kDepthMin:
      return unit.low >= below_all_layers_ ? 0 : unit.low;
    case MergeOperator::kDepthMax:
      return unit.low >= below_all_layers_ ? 0 : unit.high;
  }
  return 0;
}

void UnitMerger::Emit(uint64_t length, Accumulator unit) {
  const uint64_t status = StatusOf(unit);
  complete_.value += length;
  if (!runs_.empty() && runs_.back().status == status) {
    runs_.back().length += length;
  } else {
    runs_.push_back({length, status});
  }
}

void UnitMerger::Advance(uint64_t length, Accumulator atom) {
  if (length == 0) return;
  if (filled_ > 0) {
    const uint64_t take = std::min(length, granule_ - filled_);
    unit_ = Combine(unit_, atom);
    filled_ += take;
    length -= take;
    if (filled_ < granule_) return;
    Emit(granule_, unit_);
    filled_ = 0;
  }
  const uint64_t whole = RoundDown(length, granule_);
  if (whole > 0) Emit(whole, atom);
  filled_ = length - whole;
  unit_ = atom;
}

void UnitMerger::Add(ByteCount length, uint64_t value) { Advance(length.value, {value, value}); }

void UnitMerger::AddPadding(ByteCount length) { Advance(length.value, {}); }

void UnitMerger::Finish() {
  if (filled_ == 0) return;
  Emit(filled_, unit_);
  filled_ = 0;
}

}  // namespace gabion::block
