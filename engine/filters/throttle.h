// Limits bytes and operations per second, for one export or for several together.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>

#include "engine/block/node.h"
#include "engine/filters/filter.h"
#include "engine/runtime/clock.h"

namespace gabion::filters {

// A limit of one kind, in bytes or operations.
struct Rate {
  uint64_t per_second = 0;        // in the long run; 0: no limit
  uint64_t burst_per_second = 0;  // while a burst lasts, not below per_second; 0: no bursts but the
                                  // tenth of a second of `per_second` that is always allowed
  runtime::Duration burst_length = std::chrono::seconds(1);
  friend bool operator==(const Rate&, const Rate&) = default;
};

struct ThrottleOptions {
  Rate read_bytes;
  Rate write_bytes;
  Rate total_bytes;
  Rate read_operations;
  Rate write_operations;
  Rate total_operations;
  uint32_t operation_unit = 0;  // bytes that count as one operation; 0: any number
  friend bool operator==(const ThrottleOptions&, const ThrottleOptions&) = default;
};

// The budget that the throttles made with it share, each on whatever shard; their clocks agree.
// Any thread; requests take no lock. Owned by whoever made it, outlives its throttles.
class ThrottleGroup {
 public:
  virtual ~ThrottleGroup() = default;

  // Forgets what has been used up if `options` differ from those that hold.
  virtual void Configure(const ThrottleOptions& options) = 0;

 protected:
  ThrottleGroup() = default;
};
std::unique_ptr<ThrottleGroup> NewThrottleGroup(const ThrottleOptions& options);

// Requests wait until the group has budget for them under every limit that they count for: reads
// and writes; zeros and discards are writes. Flush(), Cache() and BlockStatus() pass. One
// throttle's waiting requests go in their order, reads and writes each in their own unless a total
// limit makes them wait together. Throttles of one group take turns, by what they use, so that each
// gets the same share while all of them have requests waiting, however long these are. A request
// that is larger than what a burst allows goes when the budget is full, and what it takes beyond
// that is paid back by its throttle before the next one goes there.
//
// Configure() configures the group, too, and reaches those that wait in this throttle; other
// throttles of the group notice with their next request or Configure(). `group` is one of
// NewThrottleGroup().
//
// Statistics: requests, how many of them waited, and how long. Effect on status, size, block sizes:
// none.
std::unique_ptr<LiveFilter<ThrottleOptions>> NewThrottle(block::Node& child,
                                                         Environment environment,
                                                         ThrottleGroup& group);

}  // namespace gabion::filters
