// A small format with metadata, for tests of the simulation: right, or with its writes in a wrong
// order.
#pragma once

#include <memory>

#include "tests/sim/format.h"

namespace gabion::sim {

enum class ToyOrder {
  kRight,
  kEarlyMetadata,  // refers to data that is not durable
  kEarlyReuse,     // writes to a block that durable metadata still refer to
  kNoFlush,        // of metadata: a flush comes before they are written
};

// A file of blocks with a table of where each is, in front. A write never changes a block: it takes
// a free one. Owned by a test; stateless.
std::unique_ptr<SimFormat> NewToyFormat(ToyOrder order);

}  // namespace gabion::sim
