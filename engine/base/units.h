// Quantities in bytes. Positions and lengths are different types, so that one is never passed for
// the other; only arithmetic with a meaning exists: offset + count -> offset, offset - offset ->
// count.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <span>

namespace gabion {

using Bytes = std::span<const std::byte>;
using MutableBytes = std::span<std::byte>;

inline constexpr uint64_t kKiB = 1024;
inline constexpr uint64_t kMiB = 1024 * kKiB;
inline constexpr uint64_t kGiB = 1024 * kMiB;

// A length in bytes.
struct ByteCount {
  uint64_t value = 0;
  friend constexpr auto operator<=>(ByteCount, ByteCount) = default;
};

// A position in bytes from the start of a disk or file.
struct ByteOffset {
  uint64_t value = 0;
  friend constexpr auto operator<=>(ByteOffset, ByteOffset) = default;
};

constexpr ByteCount operator+(ByteCount a, ByteCount b) { return {a.value + b.value}; }
constexpr ByteCount operator-(ByteCount a, ByteCount b) { return {a.value - b.value}; }
constexpr ByteOffset operator+(ByteOffset a, ByteCount b) { return {a.value + b.value}; }
constexpr ByteOffset operator-(ByteOffset a, ByteCount b) { return {a.value - b.value}; }
constexpr ByteCount operator-(ByteOffset a, ByteOffset b) { return {a.value - b.value}; }

// The bytes [offset, offset + length). Code that takes one from outside must have checked that the
// end does not overflow: see FitsWithin() in align.h.
struct ByteRange {
  ByteOffset offset;
  ByteCount length;
  constexpr ByteOffset end() const { return offset + length; }
  constexpr bool empty() const { return length.value == 0; }
  friend constexpr bool operator==(const ByteRange&, const ByteRange&) = default;
};

// Shorthand for literals and for code that comes from the wire: Range(offset, length), both in
// bytes.
constexpr ByteRange Range(uint64_t offset, uint64_t length) {
  return ByteRange{ByteOffset{offset}, ByteCount{length}};
}

}  // namespace gabion
