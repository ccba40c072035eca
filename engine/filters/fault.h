// Makes requests fail, and storage look more limited than it is.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "engine/base/units.h"
#include "engine/block/node.h"
#include "engine/filters/filter.h"

namespace gabion::filters {

// When a request fails, and how.
struct FaultRule {
  OperationSet operations = kAllOperations;
  ByteRange range{{}, ByteCount{~uint64_t{0}}};  // that a request touches; flushes touch any
  absl::StatusCode error = absl::StatusCode::kInternal;
  double probability = 1;  // of a matching request, above 0
  uint32_t max_hits = 0;   // spent after so many; 0: never
  uint32_t skip_hits = 0;  // so many matching requests go on to the next rule first
  uint32_t state = 0;      // in this state only; 0: in each. The first one is 1
  uint32_t new_state = 0;  // after a hit; 0: as before
  bool pass = false;       // hits count and change the state; the request passes
  friend bool operator==(const FaultRule&, const FaultRule&) = default;
};

struct FaultOptions {
  std::vector<FaultRule> rules;  // the first that decides about a request does
  uint32_t alignment = 0;        // power of two up to 65,536; 0: as the child's
  uint32_t max_transfer = 0;     // these three: longer ones are refused; 0: no limit
  uint32_t max_zero = 0;
  uint32_t max_discard = 0;
  uint64_t seed = 0;  // 0: another one each time
  friend bool operator==(const FaultOptions&, const FaultOptions&) = default;
};

// The counters, the state and the random sequence that fault filters share. Any thread; owned by
// whoever made it, outlives its filters.
class FaultState {
 public:
  virtual ~FaultState() = default;
  // Begins anew if `options` differ from those that hold.
  virtual void Configure(const FaultOptions& options) = 0;

 protected:
  FaultState() = default;
};
std::unique_ptr<FaultState> NewFaultState(const FaultOptions& options);

// Limits: `alignment` if it is larger than the child's, from `entry_id`; a change of it needs a new
// filter, Configure() brings everything else, to `state`, too. Requests of zero length pass. A read
// or write beyond a limit fails with kInvalidArgument and is not shown to the rules; so do zeros
// and discards. `state` is one of NewFaultState(), made with the same options. Statistics: hits and
// matching requests of each rule, from 0 on, and the state, of all filters with `state`; requests
// that were too long for this one. Effect on status: none, unless a rule says kBlockStatus.
std::unique_ptr<LiveFilter<FaultOptions>> NewFault(block::Node& child, Environment environment,
                                                   const std::string& entry_id,
                                                   const FaultOptions& options, FaultState& state);

}  // namespace gabion::filters
