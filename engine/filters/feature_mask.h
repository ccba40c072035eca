// Hides features of a disk from clients.
#pragma once

#include <memory>

#include "engine/block/node.h"
#include "engine/filters/filter.h"

namespace gabion::filters {

struct FeatureMaskOptions {
  bool hide_trim = false;
  bool hide_zero = false;
  bool hide_fast_zero = false;
  bool hide_fua = false;
  bool hide_holes = false;
  bool hide_multi_conn = false;
  bool hide_cache = false;
  friend bool operator==(const FeatureMaskOptions&, const FeatureMaskOptions&) = default;
};

// Adds to limits().hidden, which is what the NBD server advertises by. With `hide_holes` status is
// kData of layer 1 everywhere, without host offsets; else the child's. Requests pass as they are:
// nodes above may still use what clients are not told of.
std::unique_ptr<Filter> NewFeatureMask(block::Node& child, Environment environment,
                                       const FeatureMaskOptions& options);

}  // namespace gabion::filters
