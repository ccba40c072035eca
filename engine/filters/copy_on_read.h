// Copies what is read from backing images into the image itself.
#pragma once

#include <cstdint>
#include <memory>

#include "engine/block/node.h"
#include "engine/filters/filter.h"

namespace gabion::filters {

struct CopyOnReadOptions {
  // The deepest layer that is copied from; they count as in block::Extent. 0: all.
  uint32_t bottom_layer = 0;
  // What is copied at once, in bytes: a power of two, 512 to 2 MiB. The child's preferred size
  // holds instead where it is larger, so that a format with clusters need not copy, too.
  uint32_t granularity = 65536;
  friend bool operator==(const CopyOnReadOptions&, const CopyOnReadOptions&) = default;
};

// A read of data of the layers 2 to `bottom_layer` first writes the granules that hold it to the
// child, whole, and is then answered by the child. Granules in which a read finds nothing but
// layer 1, zeros, and deeper layers than that are left alone. Until a granule is written, writes,
// zeros and discards to it through this filter wait, so that none is overwritten; changes of the
// image that pass by this filter are not seen, so no other export may write to it meanwhile.
//
// A fill that fails does not fail its read: it is counted, told to the log, and nothing is filled
// for 10 seconds. Statistics: bytes_filled, fills_failed. Limits, status: the child's.
// REQUIRES: the child is writable.
std::unique_ptr<Filter> NewCopyOnRead(block::Node& child, Environment environment,
                                      const CopyOnReadOptions& options);

}  // namespace gabion::filters
