#include "engine/inspect.h"

#include <algorithm>

#include "engine/base/check.h"

namespace gabion::engine {
namespace {

constexpr uint64_t kNoHostOffset = block::kNoHostOffset;

bool HostContinues(const MapExtent& a, const MapExtent& b) {
  if (a.host_offset == kNoHostOffset || b.host_offset == kNoHostOffset) {
    return a.host_offset == b.host_offset;
  }
  return a.host_offset + a.range.length.value == b.host_offset;
}

bool Alike(const MapExtent& a, const MapExtent& b) {
  return a.zero == b.zero && a.allocated == b.allocated && a.min_depth == b.min_depth &&
         a.max_depth == b.max_depth && a.layer == b.layer && a.compressed == b.compressed &&
         HostContinues(a, b);
}

// Depths as the operators of a mixed unit count them: what is in no layer is below all layers.
uint32_t Counted(uint32_t depth, uint32_t layers) { return depth == 0 ? layers + 1 : depth; }

void Grow(MapExtent& extent, ByteCount by) { extent.range.length = extent.range.length + by; }

}  // namespace

MapMerger::MapMerger(ByteOffset start, uint32_t granularity_bytes, uint32_t layers)
    : granularity_(granularity_bytes), layers_(layers), next_(start) {
  CHECK(granularity_ == 0 || start.value % granularity_ == 0);
}

MapExtent MapMerger::FromAtom(const block::Extent& atom) const {
  MapExtent piece;
  piece.range = atom.range;
  piece.zero = block::ReadsZero(atom.kind);
  piece.allocated =
      atom.kind == block::ExtentKind::kData || atom.kind == block::ExtentKind::kZeroAllocated;
  const bool in_no_layer = atom.kind == block::ExtentKind::kUnallocated;
  piece.layer = in_no_layer || atom.apart ? 0 : atom.layer;
  piece.min_depth = in_no_layer ? 0 : atom.layer;
  piece.max_depth = piece.min_depth;
  // A hole has a place in the file, but no bytes there.
  const bool has_bytes = piece.allocated && !atom.compressed;
  piece.host_offset = has_bytes ? atom.host_offset : kNoHostOffset;
  piece.compressed = atom.compressed;
  return piece;
}

void MapMerger::Add(const block::ExtentList& extents) {
  for (const block::Extent& atom : extents) {
    CHECK(atom.range.offset == next_);
    AddPiece(FromAtom(atom), /*is_padding=*/false);
  }
}

void MapMerger::AddPadding(ByteCount length) {
  MapExtent piece;
  piece.range = {next_, length};
  piece.zero = true;
  piece.allocated = false;
  piece.min_depth = piece.max_depth = piece.layer = 0;
  AddPiece(piece, /*is_padding=*/true);
}

void MapMerger::AddPiece(const MapExtent& piece, bool is_padding) {
  CHECK(!finished_);
  MapExtent rest = piece;
  while (!rest.range.empty()) {
    uint64_t take = rest.range.length.value;
    const uint64_t in_unit = granularity_ == 0 ? 0 : next_.value % granularity_;
    const bool whole_units = in_unit == 0 && take >= std::max<uint64_t>(granularity_, 1);
    if (granularity_ != 0) {
      take = whole_units ? take - take % granularity_ : std::min(take, granularity_ - in_unit);
    }
    MapExtent part = rest;
    part.range.length = ByteCount{take};
    next_ = part.range.end();
    if (whole_units) {
      Emit(part);
    } else {
      MergeIntoUnit(part, is_padding);
      if (next_.value % granularity_ == 0) EmitUnit();
    }
    rest.range = {next_, rest.range.length - ByteCount{take}};
    if (rest.host_offset != kNoHostOffset) rest.host_offset += take;
  }
}

void MapMerger::MergeIntoUnit(const MapExtent& piece, bool is_padding) {
  if (!unit_.has_value()) {
    unit_ = piece;
    unit_is_padding_ = is_padding;
    return;
  }
  MapExtent& unit = *unit_;
  CHECK(is_padding || !unit_is_padding_);  // nothing follows padding
  if (is_padding) {
    // The identity of every operator.
  } else {
    if (unit.layer != piece.layer) unit.layer = 0;
    if (unit.layer == 0 || !HostContinues(unit, piece)) unit.host_offset = kNoHostOffset;
    unit.compressed = unit.compressed && piece.compressed;
    unit.zero = unit.zero && piece.zero;
    unit.allocated = unit.allocated || piece.allocated;
    const uint32_t low =
        std::min(Counted(unit.min_depth, layers_), Counted(piece.min_depth, layers_));
    const uint32_t high =
        std::max(Counted(unit.max_depth, layers_), Counted(piece.max_depth, layers_));
    unit.min_depth = low > layers_ ? 0 : low;
    unit.max_depth = low > layers_ ? 0 : high;
  }
  Grow(unit, piece.range.length);
}

void MapMerger::EmitUnit() {
  Emit(*unit_);
  unit_.reset();
}

void MapMerger::Emit(const MapExtent& run) {
  if (!runs_.empty() && Alike(runs_.back(), run)) {
    Grow(runs_.back(), run.range.length);
  } else {
    runs_.push_back(run);
  }
}

void MapMerger::Finish() {
  CHECK(!finished_);
  finished_ = true;
  if (unit_.has_value()) EmitUnit();
}

std::vector<MapExtent> MapMerger::Take(std::size_t max_runs) {
  const std::size_t known = finished_ || runs_.empty() ? runs_.size() : runs_.size() - 1;
  const auto end = runs_.begin() + static_cast<std::ptrdiff_t>(std::min(known, max_runs));
  std::vector<MapExtent> taken(runs_.begin(), end);
  runs_.erase(runs_.begin(), end);
  return taken;
}

}  // namespace gabion::engine
