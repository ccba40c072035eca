// Watches requests and changes none: a log, and measurements.
#pragma once

#include <cstdint>
#include <memory>

#include "engine/block/node.h"
#include "engine/filters/filter.h"
#include "engine/runtime/clock.h"

namespace gabion::filters {

struct LogOptions {
  uint32_t sample_one_in = 1;        // one of so many is told; failed ones always
  runtime::Duration slower_than{0};  // and took at least so long
  bool failures_only = false;
  friend bool operator==(const LogOptions&, const LogOptions&) = default;
};

// One line per request that is told, at level info, failed ones at warning: the operation, offset,
// length, flags, microseconds, outcome. Effect on status, size, block sizes: none.
std::unique_ptr<LiveFilter<LogOptions>> NewLog(block::Node& child, Environment environment,
                                               const LogOptions& options);

struct StatsOptions {
  friend bool operator==(const StatsOptions&, const StatsOptions&) = default;
};

// Statistics: for each operation the number of requests, bytes and failures; histograms of the time
// in microseconds (bounds 1, 2, 4, ... 2^25) and of the length in bytes (512 to 2^26). Effect on
// status, size, block sizes: none.
std::unique_ptr<Filter> NewStats(block::Node& child, Environment environment);

}  // namespace gabion::filters
