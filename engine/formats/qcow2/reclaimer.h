// Clusters on their way from use to free.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "engine/formats/qcow2/allocator.h"
#include "engine/formats/qcow2/epochs.h"
#include "engine/formats/qcow2/tables.h"
#include "engine/runtime/event.h"
#include "engine/runtime/task.h"
#include "engine/runtime/task_set.h"

namespace gabion::qcow2 {

// A reference to a cluster that is given up passes three stations:
//   Add()      no table in memory has it any more;
//   Durable()  nor has any in the file, whatever a crash does (invariant W4);
//   reclaimed  everybody who might still use the cluster is done with it: its space is given back
//              and its refcount decreased, in this order, so that nobody gets it before (W5).
// Owned by a node, used on its shard.
class Reclaimer {
 public:
  Reclaimer(Tables& tables, Allocator& allocator, Epochs& epochs);

  // One reference to each of `clusters` clusters from `host_offset` on.
  void Add(uint64_t host_offset, uint64_t clusters = 1);
  std::size_t waiting() const { return waiting_.size(); }

  // For the commit, which takes what was added, and says how it went.
  std::vector<uint64_t> Take() { return std::exchange(waiting_, {}); }
  void PutBack(const std::vector<uint64_t>& clusters);
  void Durable(std::vector<uint64_t> clusters);

  // Waits until all that is durable has been reclaimed. What cannot be reclaimed stays a leak.
  Task<void> Drain() { return tasks_.Drain(); }

 private:
  Task<void> Reclaim();
  Task<void> ReclaimBatch(std::vector<uint64_t> clusters);
  Task<void> Punch(const std::vector<uint64_t>& clusters);

  Tables& tables_;
  Allocator& allocator_;
  Epochs& epochs_;
  std::vector<uint64_t> waiting_;  // clusters, one entry for each reference
  std::vector<uint64_t> durable_;
  bool reclaiming_ = false;
  runtime::TaskSet tasks_;
};

}  // namespace gabion::qcow2
