// Makes failed requests anew.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>

#include "engine/block/node.h"
#include "engine/filters/filter.h"
#include "engine/runtime/clock.h"

namespace gabion::filters {

struct RetryOptions {
  uint32_t max_retries = 5;
  runtime::Duration initial_backoff = std::chrono::milliseconds(100);
  runtime::Duration max_backoff = std::chrono::seconds(10);
  bool retry_no_space = false;  // kResourceExhausted, too
  friend bool operator==(const RetryOptions&, const RetryOptions&) = default;
};

// A request that failed with what may pass (any code but kInvalidArgument, kOutOfRange,
// kPermissionDenied, kUnimplemented, kFailedPrecondition, kDataLoss, and kResourceExhausted unless
// `retry_no_space`) is made again after a wait that doubles each time, and is a millisecond at
// least. A failed Cache() is not, as a
// mere hint, nor a failed Flush(): what it would have made durable may be lost (the kernel tells
// once), and a later success would be a lie. Configure() holds for requests that wait, too: with
// fewer retries left they fail at once. Statistics: "retries"; requests that succeeded by them,
// "recovered"; requests that failed after the last one, "given_up". Effect on status, size, block
// sizes: none.
std::unique_ptr<LiveFilter<RetryOptions>> NewRetry(block::Node& child, Environment environment,
                                                   const RetryOptions& options);

}  // namespace gabion::filters
