// Brings what only a cache has to the disk below it.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "engine/block/slot_table.h"
#include "engine/filters/caching/store.h"
#include "engine/runtime/clock.h"
#include "engine/runtime/ready_queue.h"
#include "engine/runtime/task.h"
#include "engine/runtime/task_set.h"

namespace gabion::filters::caching {

// Writes dirty blocks back, neighbours together; a block is clean when the child has it. A block
// that cannot be written stays dirty, and keeps no other from being tried.
//
// Owned by a cache; used on its shard. Borrows everything it is given. Stop() comes before
// destruction.
class WriteBack {
 public:
  // In blocks: more dirty ones than `high` are written back in the background, until `low` are
  // left.
  struct Marks {
    uint64_t high = 0;
    uint64_t low = 0;
  };

  WriteBack(Store& store, runtime::ReadyQueue& ready, runtime::Clock& clock)
      : store_(store), ready_(ready), clock_(clock), tasks_(ready) {}

  // Begins to write back in the background if there is more than `marks` allow and that is not
  // under way. After an error it rests for a second.
  void Nudge(Marks marks);

  // All blocks that are dirty at the moment; the first error.
  Task<absl::Status> All();

  // Ends the work in the background. Nudge() does nothing until Go().
  Task<void> Stop();
  void Go() { is_stopped_ = false; }

 private:
  Task<void> ToLowMark();
  // The first dirty blocks from `from` on, as many as go together.
  block::SlotTable::Blocks Next(uint64_t from) const;
  // Those of the blocks [begin, end) that are dirty.
  Task<absl::Status> Blocks(uint64_t begin, uint64_t end);
  Task<absl::Status> Together(uint64_t begin, uint64_t end, MutableBytes staged);

  Store& store_;
  runtime::ReadyQueue& ready_;
  runtime::Clock& clock_;
  runtime::TaskSet tasks_;  // one at most
  Marks marks_;
  bool is_stopped_ = false;
  uint64_t from_ = 0;  // where the background goes on
  runtime::Instant rests_until_;
};

}  // namespace gabion::filters::caching
