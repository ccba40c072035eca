// Emulates block sizes: what is below gets aligned requests of a bounded length.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "engine/block/node.h"
#include "engine/filters/filter.h"

namespace gabion::filters {

struct AlignOptions {
  uint32_t alignment = 0;     // power of two up to 2 MiB; 0, or less than the child's: the child's
  uint32_t max_transfer = 0;  // multiple of the alignment, at least 4096; 0: no limit
  friend bool operator==(const AlignOptions&, const AlignOptions&) = default;
};

// Reads, writes, zeros and discards reach the child as multiples of the alignment (or up to its
// end), by read-modify-write as block::AlignedNode does, and cut into pieces of at most
// `max_transfer` bytes (one unit, if that is more), which run one after another; the first error
// ends the request. A fast zero fails only if its first piece is not fast. limits(): alignment 1,
// nothing emulated below it told; preferred at least the alignment, from `entry_id`. Status:
// byte-exact, the child's.
std::unique_ptr<Filter> NewAlign(block::Node& child, Environment environment,
                                 const std::string& entry_id, const AlignOptions& options);

}  // namespace gabion::filters
