// Refuses changes: of everything, or of ranges.
#pragma once

#include <memory>
#include <vector>

#include "engine/base/units.h"
#include "engine/block/node.h"
#include "engine/filters/filter.h"

namespace gabion::filters {

struct ReadOnlyOptions {
  friend bool operator==(const ReadOnlyOptions&, const ReadOnlyOptions&) = default;
};

// limits().writable is false. Flush() passes; Resize() is kPermissionDenied. Effect on status,
// size, block sizes: none.
std::unique_ptr<Filter> NewReadOnly(block::Node& child, Environment environment);

struct WriteProtectOptions {
  std::vector<ByteRange> ranges;  // in any order; may reach beyond the disk, and overlap
  bool inverted = false;          // everything but the ranges is protected
  friend bool operator==(const WriteProtectOptions&, const WriteProtectOptions&) = default;
};

// A write, zero or discard that touches a protected byte fails with kPermissionDenied as a whole,
// with the range named. Configure() holds for requests that come after it. Statistics: "refused".
// Effect on status, size, block sizes: none.
std::unique_ptr<LiveFilter<WriteProtectOptions>> NewWriteProtect(
    block::Node& child, Environment environment, const WriteProtectOptions& options);

}  // namespace gabion::filters
