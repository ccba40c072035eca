// Status of byte ranges: what nodes answer, byte-exact, and what the block-size policy later
// merges.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "engine/base/units.h"

namespace gabion::block {

// What a range is, apart from its content. Terms of the status rules: DATA, ZERO_ALLOC, ZERO_PLAIN,
// NONE.
enum class ExtentKind : uint8_t {
  kData,           // may read as anything
  kZeroAllocated,  // reads as zeros, space is reserved
  kZero,           // reads as zeros by metadata or hole, no space
  kUnallocated,    // in no layer of the chain; reads as zeros
};

// True if every byte of an extent of this kind reads as zero.
constexpr bool ReadsZero(ExtentKind kind) { return kind != ExtentKind::kData; }

// Where in its layer's file an extent of data starts; kNoHostOffset: not known, or no single place.
inline constexpr uint64_t kNoHostOffset = ~uint64_t{0};

// An atom: a run of bytes with one status. `layer` counts the nodes of the chain that can hold
// allocation, from the top: 1 = active image, 2 = its backing image, ...; 0 exactly for
// kUnallocated. Filters never count.
struct Extent {
  ByteRange range;
  ExtentKind kind = ExtentKind::kData;
  uint32_t layer = 1;
  uint64_t host_offset = kNoHostOffset;
  bool compressed = false;
  bool apart = false;  // a filter has it, and no image of the chain; the layer is what it counts as

  friend bool operator==(const Extent&, const Extent&) = default;
};

// Consecutive extents without gaps, neighbours merged where nothing tells them apart (host offsets
// included, which must continue). A plain value.
using ExtentList = std::vector<Extent>;

// Appends `extent`, which starts where `list` ends; merges it into the last one if possible. Empty
// extents are dropped. A compressed extent has no byte-wise place in its file, so two of them merge
// only if neither has a host offset.
void AppendExtent(ExtentList& list, const Extent& extent);

}  // namespace gabion::block
