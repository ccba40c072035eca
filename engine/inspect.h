// What the control plane tells about extents: byte-exact, or merged to a granularity by the rules
// of section 4 of the block-status specification (hole and zero are ANDed, the depth becomes a
// pair). Pure: extents in, extents out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "engine/base/units.h"
#include "engine/block/extent.h"

namespace gabion::engine {

// A run of bytes of which all of this holds.
struct MapExtent {
  ByteRange range;
  bool zero = false;       // every byte reads as zero; otherwise it may be data
  bool allocated = true;   // storage is reserved for some of it; false implies zero
  uint32_t min_depth = 1;  // topmost layer that touches it, 1 = the image; 0: no layer does
  // Deepest layer that touches it; layers + 1 if some of it is in no layer, 0 if all of it is.
  uint32_t max_depth = 1;
  uint32_t layer = 1;  // the one layer that supplies all of it; 0: several, or none
  uint64_t host_offset = block::kNoHostOffset;  // of its first byte, if it is one piece there
  bool compressed = false;                      // all of it

  friend bool operator==(const MapExtent&, const MapExtent&) = default;
};

// Turns successive extents into successive runs whose borders are multiples of the granularity (but
// the end of the disk). The work is proportional to the number of extents, not of units. A plain
// value: one owner, one thread at a time.
class MapMerger {
 public:
  // Runs begin at `start`, a multiple of `granularity_bytes`. Granularity 0: byte-exact. `layers`:
  // how many nodes of the disk can hold allocation.
  MapMerger(ByteOffset start, uint32_t granularity_bytes, uint32_t layers);

  // The next extents: they start where the last ones ended.
  void Add(const block::ExtentList& extents);
  // The next bytes are padding behind the content. It reads as zeros, is in no layer, and changes
  // nothing about a unit that begins with content.
  void AddPadding(ByteCount length);
  // No more is added: a unit that is not full is told as it is. Call once.
  void Finish();

  // The runs that are known in full, at most `max_runs`; those taken are not told again.
  std::vector<MapExtent> Take(std::size_t max_runs);

 private:
  void AddPiece(const MapExtent& piece, bool is_padding);
  void Emit(const MapExtent& run);
  void EmitUnit();
  MapExtent FromAtom(const block::Extent& atom) const;
  void MergeIntoUnit(const MapExtent& piece, bool is_padding);

  uint64_t granularity_;
  uint32_t layers_;
  ByteOffset next_;
  bool finished_ = false;
  std::optional<MapExtent> unit_;  // begun, not full
  bool unit_is_padding_ = false;   // nothing but padding in it so far
  std::vector<MapExtent> runs_;    // the last one may still grow
};

}  // namespace gabion::engine
