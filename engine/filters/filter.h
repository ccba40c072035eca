// What all filters have in common. A filter is a node with one child: see block/filter_node.h.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "engine/base/log.h"
#include "engine/block/filter_node.h"
#include "engine/runtime/clock.h"
#include "engine/runtime/ready_queue.h"

namespace gabion::filters {

// What a filter may use besides its child; all of it outlives the filter.
struct Environment {
  runtime::ReadyQueue& ready;
  runtime::Clock& clock;
  Logger& logger;
  std::string where;  // for people: the export and the stack entry, "exports/a, filter 'slow'"
};

// Kinds of requests, as bits of a set.
enum class Operation : uint8_t { kRead, kWrite, kZero, kDiscard, kFlush, kCache, kBlockStatus };
using OperationSet = uint8_t;  // bit 1 << Operation
constexpr OperationSet Bit(Operation operation) {
  return static_cast<OperationSet>(1U << static_cast<unsigned>(operation));
}
inline constexpr OperationSet kAllOperations = 0x7f;

// What a filter has counted, for people.
struct Statistics {
  struct Counter {
    std::string name;  // lower_snake_case
    uint64_t value = 0;
  };
  // How many values were at most `bound` and above the one before; the last bound is ~0.
  struct Bucket {
    uint64_t bound = 0;
    uint64_t count = 0;
  };
  struct Histogram {
    std::string name;  // with its unit: "read_time_us"
    std::vector<Bucket> buckets;
    uint64_t sum = 0;
  };
  std::vector<Counter> counters;
  std::vector<Histogram> histograms;
};

// Errors that a filter makes itself say so by Blame(); those of its child pass as they are.
//
// Owned by the stack of an export; used on its shard.
class Filter : public block::FilterNode {
 public:
  virtual Statistics GetStatistics() const { return {}; }

  // Goes on where `before`, a filter of the same kind, has been: counts, and what it has learned.
  // Called once, before the first request, while `before` has none in flight.
  virtual void TakeOver(Filter& before);

  // The disk is going away: whoever waits in the filter on purpose goes on at once, and nobody
  // waits any more.
  virtual void Hurry();

  // Ends what the filter does by itself besides requests, such as reading ahead. Called when no
  // request is in flight and none will come, before destruction.
  virtual Task<void> Settle();

 protected:
  Filter(block::Node& child, Environment environment)
      : FilterNode(child), environment_(std::move(environment)) {}
  Filter(block::Node& child, block::Limits limits, Environment environment)
      : FilterNode(child, std::move(limits)), environment_(std::move(environment)) {}

  const Environment& environment() const { return environment_; }
  // `status` with the name of the entry in front.
  absl::Status Blame(const absl::Status& status) const;

 private:
  const Environment environment_;
};

// A filter whose parameters change while requests are under way.
template <typename Options>
class LiveFilter : public Filter {
 public:
  // From now on `options` hold, for requests that wait in the filter, too.
  virtual void Configure(const Options& options) = 0;

 protected:
  using Filter::Filter;
};

}  // namespace gabion::filters
