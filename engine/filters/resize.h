// Shows a disk longer or shorter than it is.
#pragma once

#include <memory>

#include "engine/base/units.h"
#include "engine/block/node.h"
#include "engine/filters/filter.h"

namespace gabion::filters {

struct ResizeOptions {
  enum class Mode { kSize, kRoundUp, kRoundDown };
  Mode mode = Mode::kSize;
  uint64_t bytes = 0;  // the size, or the power of two to round to
  friend bool operator==(const ResizeOptions&, const ResizeOptions&) = default;
};

// The size that a disk of `size` bytes is shown with.
ByteCount ResizedSize(const ResizeOptions& options, ByteCount size);

// True if the filter can stand on a child with these limits, now and when the child has grown; if
// not, it needs an AlignedNode below.
bool ResizeFits(const ResizeOptions& options, const block::Limits& child);

// What is added reads as zeros, is kUnallocated, takes only zeros (a request with anything else
// there is kResourceExhausted and writes nothing), and is no padding in the sense of limits():
// clients see it as a hole. What is cut off is not there. A durable write or zero of added bytes
// alone is a Flush() below. Rounding follows the child when it grows. Resize() is kUnimplemented.
// REQUIRES: the size shown is a multiple of the child's alignment, or not below the child's size
// (ResizeFits() says so of any size); the child has no padding; rounding up does not overflow.
std::unique_ptr<Filter> NewResize(block::Node& child, Environment environment,
                                  const ResizeOptions& options);

}  // namespace gabion::filters
