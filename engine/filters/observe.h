// Watches requests and changes none: a log, and measurements.
#pragma once

#include <cstdint>
#include <memory>

#include "engine/block/node.h"
#include "engine/filters/filter.h"
#include "engine/runtime/clock.h"

namespace gabion::filters {

struct LogOptions {
  uint32_t sample_one_in = 1;        // of those that took long enough, one of so many is told
  runtime::Duration slower_than{0};  // long enough is at least so long
  bool failures_only = false;        // none of those that succeeded; failed ones are always told
  friend bool operator==(const LogOptions&, const LogOptions&) = default;
};

// One line per request that is told, when it is done, at level info, failed ones at warning: the
// operation, offset, length, flags, microseconds, outcome: "exports/a, filter 'log': write 4096+512
// durable in 35 us: OK". Effect on status, size, block sizes: none.
std::unique_ptr<LiveFilter<LogOptions>> NewLog(block::Node& child, Environment environment,
                                               const LogOptions& options);

struct StatsOptions {
  friend bool operator==(const StatsOptions&, const StatsOptions&) = default;
};

// Statistics of the requests that are done, for each operation: "read_requests", "read_bytes" (of
// those that succeeded), "read_failures"; histograms of the time, "read_time_us" (bounds 1, 2, 4,
// ... 2^25), and but for flushes of the length, "read_length_bytes" (512 to 2^26). The others are
// write, zero, discard, flush, cache and block_status. Effect on status, size, block sizes: none.
std::unique_ptr<Filter> NewStats(block::Node& child, Environment environment);

}  // namespace gabion::filters
