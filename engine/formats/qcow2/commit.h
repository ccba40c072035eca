// How changed tables come into the file.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "engine/block/range_lock.h"
#include "engine/formats/qcow2/reclaimer.h"
#include "engine/formats/qcow2/tables.h"
#include "engine/runtime/event.h"
#include "engine/runtime/task.h"

namespace gabion::qcow2 {

// Writes tables in the order that keeps the file sound at every instant (qcow2_node.h, W1 to W5).
// A commit takes all changes of one moment; whoever asks for one while another is being written
// shares the next. Owned by a node, used on its shard.
class Commit {
 public:
  // `lock` is held while tables are written.
  Commit(Tables& tables, Reclaimer& reclaimer, block::RangeLock& lock);

  // Everything whose task was done before this call, data and tables, is durable when this task is
  // done: one sync, two if tables have changed, three with a new refcount block among them.
  Task<absl::Status> Sync();

  // True if the file's tables are not those in memory.
  bool IsDirty() const;
  // Bytes of tables that have changed, and references that wait to be given up.
  std::size_t dirty_bytes() const {
    return tables_.l2.dirty_bytes() + tables_.refcounts.dirty_bytes();
  }

 private:
  struct Change {
    uint64_t index;
    uint64_t value;
    uint64_t before = 0;  // L1: what the file has
  };
  // All changes of one moment.
  struct Changes {
    std::vector<SliceRun> refcounts;
    std::vector<Change> refcount_table;
    std::vector<SliceRun> new_l2;  // in tables that nothing in the file refers to yet
    std::vector<SliceRun> l2;
    std::vector<Change> l1;
    std::vector<uint64_t> linked;    // tables that `l1` refers to
    std::vector<uint64_t> given_up;  // clusters that nothing refers to after this
    bool can_be_linked = false;      // `linked` are durable as they were taken
  };

  Task<absl::Status> Run();
  Changes TakeChanges();
  void PutBack(const Changes& changes);
  Task<absl::Status> Write(Changes& changes);
  Task<absl::Status> WriteEntries(uint64_t table, const std::vector<Change>& entries);
  void Done(Changes changes);

  Tables& tables_;
  Reclaimer& reclaimer_;
  block::RangeLock& lock_;
  bool running_ = false;
  uint64_t begun_ = 0;     // commits
  uint64_t finished_ = 0;  // commits
  absl::Status result_;    // of the last one that finished
  runtime::Signal finished_one_;
};

}  // namespace gabion::qcow2
