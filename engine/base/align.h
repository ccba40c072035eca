// Alignment as algebra: pure functions on bytes; every alignment is a power of two.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

#include "engine/base/units.h"

namespace gabion {

constexpr bool IsPowerOfTwo(uint64_t value) { return std::has_single_bit(value); }

constexpr bool IsMultiple(uint64_t value, uint64_t alignment) {
  return (value & (alignment - 1)) == 0;
}
constexpr uint64_t RoundDown(uint64_t value, uint64_t alignment) {
  return value & ~(alignment - 1);
}

// REQUIRES: value + alignment - 1 does not overflow.
constexpr uint64_t RoundUp(uint64_t value, uint64_t alignment) {
  return RoundDown(value + (alignment - 1), alignment);
}

constexpr bool IsAligned(const ByteRange& range, ByteCount alignment) {
  return IsMultiple(range.offset.value | range.length.value, alignment.value);
}

// True if offset and end are multiples of `alignment`, where an end at `size` counts as one: how
// requests address the last, partial unit of a disk whose size is no multiple.
constexpr bool IsAlignedWithin(const ByteRange& range, ByteCount alignment, ByteCount size) {
  return IsMultiple(range.offset.value, alignment.value) &&
         (IsMultiple(range.end().value, alignment.value) || range.end().value == size.value);
}

// True if `range` lies within [0, size), in arithmetic that cannot overflow.
constexpr bool FitsWithin(const ByteRange& range, ByteCount size) {
  return range.offset.value <= size.value && range.length.value <= size.value - range.offset.value;
}

// The smallest range of whole units of `alignment` around `range`, cut off at `size`.
constexpr ByteRange AlignOutward(const ByteRange& range, ByteCount alignment, ByteCount size) {
  const uint64_t begin = RoundDown(range.offset.value, alignment.value);
  const uint64_t room = size.value - begin;
  const uint64_t want = range.end().value - begin;
  const uint64_t tail = want & (alignment.value - 1);
  const uint64_t grow = tail == 0 ? 0 : alignment.value - tail;
  return Range(begin, want > room || grow > room - want ? room : want + grow);
}

// The bytes that both ranges have in common; empty, at the larger offset, if there are none.
constexpr ByteRange Intersect(const ByteRange& a, const ByteRange& b) {
  const uint64_t begin = std::max(a.offset.value, b.offset.value);
  const uint64_t end = std::min(a.end().value, b.end().value);
  return Range(begin, end > begin ? end - begin : 0);
}

constexpr bool Overlaps(const ByteRange& a, const ByteRange& b) { return !Intersect(a, b).empty(); }

}  // namespace gabion
