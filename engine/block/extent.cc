#include "engine/block/extent.h"

#include "engine/base/check.h"

namespace gabion::block {
namespace {

// True if `next` continues the place in the file that `last` describes.
bool HostContinues(const Extent& last, const Extent& next) {
  if (last.host_offset == kNoHostOffset || next.host_offset == kNoHostOffset) {
    return last.host_offset == next.host_offset;
  }
  return !last.compressed && last.host_offset + last.range.length.value == next.host_offset;
}

}  // namespace

void AppendExtent(ExtentList& list, const Extent& extent) {
  if (extent.range.empty()) return;
  if (!list.empty()) {
    Extent& last = list.back();
    CHECK_EQ(last.range.end().value, extent.range.offset.value);
    if (last.kind == extent.kind && last.layer == extent.layer &&
        last.compressed == extent.compressed && last.apart == extent.apart &&
        HostContinues(last, extent)) {
      last.range.length = last.range.length + extent.range.length;
      return;
    }
  }
  list.push_back(extent);
}

}  // namespace gabion::block
