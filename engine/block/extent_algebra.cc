#include "engine/block/extent_algebra.h"

#include <algorithm>
#include <cstddef>

#include "engine/base/align.h"
#include "engine/base/check.h"

namespace gabion::block {

ByteRange Covered(const ExtentList& list) {
  if (list.empty()) return Range(0, 0);
  const ByteOffset begin = list.front().range.offset;
  return ByteRange{begin, list.back().range.end() - begin};
}

Extent ClipExtent(const Extent& extent, ByteRange range) {
  Extent result = extent;
  result.range = Intersect(extent.range, range);
  if (extent.host_offset != kNoHostOffset && !extent.compressed) {
    result.host_offset += result.range.offset.value - extent.range.offset.value;
  }
  return result;
}

ExtentList Clip(const ExtentList& list, ByteRange range) {
  ExtentList result;
  for (const Extent& extent : list) AppendExtent(result, ClipExtent(extent, range));
  return result;
}

ExtentList Shift(ExtentList list, ByteOffset from, ByteOffset to) {
  for (Extent& extent : list) {
    CHECK_GE(extent.range.offset.value, from.value);
    extent.range.offset = to + (extent.range.offset - from);
  }
  return list;
}

ExtentList Deepen(ExtentList list, uint32_t layers) {
  for (Extent& extent : list) {
    if (extent.kind != ExtentKind::kUnallocated) extent.layer += layers;
  }
  return list;
}

void AppendExtents(ExtentList& list, const ExtentList& tail) {
  for (const Extent& extent : tail) AppendExtent(list, extent);
}

namespace {

// Walks the backing chain's view once, forwards.
class BackingView {
 public:
  BackingView(const ExtentList& backing, ByteCount size) : backing_(backing), size_(size) {}

  // Appends what lies below `range`; false if the view ends before all of it is known.
  bool AppendBelow(ByteRange range, ExtentList& out) {
    const ByteRange inside = Intersect(range, ByteRange{ByteOffset{0}, size_});
    ByteOffset at = range.offset;
    for (; next_ < backing_.size() && at < inside.end(); ++next_) {
      const Extent part = ClipExtent(backing_[next_], inside);
      if (!part.range.empty()) {
        CHECK_EQ(part.range.offset.value, at.value);
        AppendExtent(out, Below(part));
        at = part.range.end();
      }
      if (backing_[next_].range.end() > inside.end()) break;  // the next range may begin in it
    }
    if (at < inside.end()) return false;
    const ByteRange past{at, range.end() - at};
    AppendExtent(out, Extent{.range = past, .kind = ExtentKind::kZero, .layer = 2});
    return true;
  }

 private:
  static Extent Below(Extent extent) {
    if (extent.kind != ExtentKind::kUnallocated) ++extent.layer;
    return extent;
  }

  const ExtentList& backing_;
  const ByteCount size_;
  std::size_t next_ = 0;
};

}  // namespace

ExtentList Overlay(const ExtentList& top, const ExtentList& backing, ByteCount backing_size) {
  ExtentList result;
  BackingView below(backing, backing_size);
  for (const Extent& extent : top) {
    if (extent.kind != ExtentKind::kUnallocated) {
      AppendExtent(result, extent);
    } else if (!below.AppendBelow(extent.range, result)) {
      break;
    }
  }
  return result;
}

}  // namespace gabion::block
