// The filters of an export as nodes: between the root of its image and what its clients see.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/base/log.h"
#include "engine/block/node.h"
#include "engine/filter_spec.h"
#include "engine/filters/filter.h"
#include "engine/io/directory.h"
#include "engine/runtime/clock.h"
#include "engine/runtime/ready_queue.h"
#include "engine/runtime/task.h"
#include "engine/runtime/worker_pool.h"
#include "engine/shared_states.h"

namespace gabion::engine {

// Most entries of a stack.
inline constexpr std::size_t kMostFilters = 64;

// What it takes to open encrypted disks.
struct KeySurroundings {
  const io::Directory& secrets;  // the files that entries name
  runtime::Workers& workers;
  runtime::Workers& key_workers;  // as OpenLuks() wants them
};

// What a stack stands in; all of it outlives the stack.
struct StackSurroundings {
  runtime::ReadyQueue& ready;
  runtime::Clock& clock;
  Logger& logger;
  SharedFilterStates& states;
  // The export, and which of those that had its name: inline filters keep their state by it.
  std::string export_name;
  uint64_t incarnation = 0;
  const KeySurroundings* keys = nullptr;  // null: encrypted disks are not opened here
};

// The order is that of the entries. Where a filter needs more alignment than what is above it
// keeps, an AlignedNode is put between them, and one at the top, so that top() takes any range:
// clients are told of the largest alignment that was needed above the last place where somebody
// asked for emulation (limits().emulated_alignment), and their replies are merged to it. So every
// order of entries gives aligned replies.
//
// Owned by an export's server; used on its shard. A stack that was built is not in use until
// something is made to stand on top().
class FilterStack {
 public:
  // Reads what filters must know before they start (partition tables, and headers of encrypted
  // disks, which takes seconds). kInvalidArgument FILTER_PARAMETERS_INVALID, with entry-id, index
  // and field; kFailedPrecondition FILTER_KIND_DISABLED. `surroundings` is copied; `root` outlives
  // the stack.
  static Task<absl::StatusOr<std::unique_ptr<FilterStack>>> Build(StackSurroundings surroundings,
                                                                  block::Node& root,
                                                                  std::vector<FilterEntry> entries);
  ~FilterStack();
  FilterStack(const FilterStack&) = delete;
  FilterStack& operator=(const FilterStack&) = delete;

  // Alignment 1, any buffer.
  block::Node& top() { return *top_; }

  const std::vector<FilterEntry>& entries() const { return entries_; }

  // True if `entries` differ from those that there are in parameters only that change while
  // requests are in flight. Configure() then makes them those that there are.
  bool CanConfigure(const std::vector<FilterEntry>& entries) const;
  // REQUIRES: CanConfigure(entries).
  void Configure(const std::vector<FilterEntry>& entries);

  // Called when this stack has taken the place of `before` and no request is in flight: filters
  // whose entries stay go on where those of `before` were, and the parameters hold.
  void TakeOver(FilterStack& before);

  // False if a client of `other` would see other bytes here.
  bool ShowsSameBytes(const FilterStack& other) const;

  // The image has become longer.
  void Refresh();

  // The export is going away: see Filter::Hurry().
  void Hurry();

  // Ends what the filters do by themselves. Before destruction, when no request is in flight.
  Task<void> Settle();

  std::vector<FilterStatistics> GetStatistics() const;

  // What a request passes, from the top.
  struct Level {
    const block::FilterNode* node = nullptr;  // null: a bypassed entry
    const FilterEntry* entry = nullptr;       // null: an AlignedNode that was put in
  };
  std::vector<Level> Levels() const;

 private:
  class Builder;
  // An entry's nodes. Bypassed ones have none, but keep what they share.
  struct Place {
    SharedStates<filters::ThrottleGroup>::Ref throttle;
    SharedStates<filters::FaultState>::Ref fault;
    std::unique_ptr<filters::Filter> filter;
  };

  // Consecutive bytes of the top, and where in the image they come from; none: made up.
  struct Piece {
    std::optional<ByteOffset> from;
    ByteCount length;
    friend bool operator==(const Piece&, const Piece&) = default;
  };

  FilterStack(block::Node& root, std::vector<FilterEntry> entries);

  std::vector<Piece> Pieces() const;

  // In the order of `entries_`.
  std::vector<FilterEntry> entries_;
  std::vector<Place> places_;
  // AlignedNodes, and all nodes from the bottom, to be refreshed.
  std::vector<std::unique_ptr<block::FilterNode>> aligned_;
  std::vector<block::FilterNode*> upwards_;
  block::Node* top_;
};

}  // namespace gabion::engine
