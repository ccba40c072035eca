// Makes requests take longer.
#pragma once

#include <memory>

#include "engine/block/node.h"
#include "engine/filters/filter.h"
#include "engine/runtime/clock.h"

namespace gabion::filters {

struct DelayOptions {
  runtime::Duration read{0};
  runtime::Duration write{0};
  runtime::Duration zero{0};
  runtime::Duration discard{0};
  runtime::Duration flush{0};
  runtime::Duration block_status{0};
  runtime::Duration jitter{0};  // up to so much more, evenly, for a request that waits at all
  friend bool operator==(const DelayOptions&, const DelayOptions&) = default;
};

// Each request waits by itself before it goes to the child; Cache() and Close() do not wait.
// Requests that wait follow Configure(): those that have waited long enough by the new options go,
// the others wait until they have. Statistics: requests that waited, and that wait. Effect on
// status, size, block sizes: none.
std::unique_ptr<LiveFilter<DelayOptions>> NewDelay(block::Node& child, Environment environment,
                                                   const DelayOptions& options);

}  // namespace gabion::filters
