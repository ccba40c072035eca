#include "engine/formats/qcow2/commit.h"

#include <array>

#include "engine/base/bytes.h"
#include "engine/base/status_macros.h"

namespace gabion::qcow2 {
namespace {

constexpr std::size_t kEntryBytes = sizeof(uint64_t);

}  // namespace

Commit::Commit(Tables& tables, Reclaimer& reclaimer, block::RangeLock& lock)
    : tables_(tables), reclaimer_(reclaimer), lock_(lock), finished_one_(tables.ready) {}

bool Commit::IsDirty() const {
  return running_ || dirty_bytes() > 0 || !tables_.dirty_l1.empty() ||
         !tables_.dirty_refcount_table.empty() || reclaimer_.waiting() > 0;
}

// A later commit has all that an earlier one had, so that its result stands for both.
Task<absl::Status> Commit::Sync() {
  const uint64_t wanted = begun_ + 1;
  while (finished_ < wanted) {
    if (running_) {
      co_await finished_one_.Wait();
      continue;
    }
    running_ = true;
    co_await tables_.ready.Yield();  // others of this turn join
    const uint64_t number = ++begun_;
    const absl::Status status = co_await Run();
    result_ = status;
    finished_ = number;
    running_ = false;
    finished_one_.WakeAll();
  }
  co_return result_;
}

Task<absl::Status> Commit::Run() {
  const block::RangeLock::Guard guard =
      co_await lock_.Acquire(Range(0, 1), block::RangeLockMode::kExclusive);
  if (!tables_.unwritable.ok()) co_return tables_.unwritable;
  Changes changes = TakeChanges();
  const absl::Status status = co_await Write(changes);
  if (status.ok()) {
    Done(std::move(changes));
  } else {
    PutBack(changes);
  }
  co_return status;
}

Commit::Changes Commit::TakeChanges() {
  Changes changes;
  const auto all = [](const SliceCache::Slice&) { return true; };
  const auto is_new = [this](const SliceCache::Slice& slice) {
    return tables_.new_l2.contains(tables_.geometry.ClusterStart(slice.offset));
  };
  changes.refcounts = tables_.refcounts.TakeDirty(all);
  changes.new_l2 = tables_.l2.TakeDirty(is_new);
  changes.l2 = tables_.l2.TakeDirty(all);
  for (const uint64_t i : tables_.dirty_refcount_table) {
    changes.refcount_table.push_back({i, tables_.refcount_table[i]});
  }
  for (const auto& [i, before] : tables_.dirty_l1) {
    changes.l1.push_back({i, tables_.l1[i], before});
  }
  changes.linked.assign(tables_.new_l2.begin(), tables_.new_l2.end());
  changes.given_up = reclaimer_.Take();
  tables_.dirty_refcount_table.clear();
  tables_.dirty_l1.clear();
  tables_.new_l2.clear();
  return changes;
}

void Commit::PutBack(const Changes& changes) {
  tables_.refcounts.PutBack(changes.refcounts);
  tables_.l2.PutBack(changes.new_l2);
  tables_.l2.PutBack(changes.l2);
  for (const Change& change : changes.refcount_table) {
    tables_.dirty_refcount_table.insert(change.index);
  }
  for (const Change& change : changes.l1) {
    tables_.dirty_l1.insert_or_assign(change.index, change.before);
  }
  if (!changes.can_be_linked) {
    tables_.new_l2.insert(changes.linked.begin(), changes.linked.end());
  }
  reclaimer_.PutBack(changes.given_up);
}

void Commit::Done(Changes changes) {
  tables_.refcounts.Written(changes.refcounts);
  tables_.l2.Written(changes.new_l2);
  tables_.l2.Written(changes.l2);
  reclaimer_.Durable(std::move(changes.given_up));
}

Task<absl::Status> Commit::WriteEntries(uint64_t table, const std::vector<Change>& entries) {
  std::vector<SliceRun> runs;
  for (const Change& entry : entries) {
    SliceRun run{table + entry.index * kEntryBytes, std::vector<std::byte>(kEntryBytes)};
    StoreBe64(run.bytes.data(), entry.value);
    if (!runs.empty() && runs.back().offset + runs.back().bytes.size() == run.offset) {
      runs.back().bytes.insert(runs.back().bytes.end(), run.bytes.begin(), run.bytes.end());
    } else {
      runs.push_back(std::move(run));
    }
  }
  co_return co_await WriteRuns(tables_.file, runs);
}

Task<absl::Status> Commit::Write(Changes& changes) {
  io::File& file = tables_.file;
  CO_RETURN_IF_ERROR(co_await WriteRuns(file, changes.refcounts));
  CO_RETURN_IF_ERROR(co_await WriteRuns(file, changes.new_l2));
  if (!changes.refcount_table.empty()) {
    CO_RETURN_IF_ERROR(co_await file.Sync());  // W3
    CO_RETURN_IF_ERROR(
        co_await WriteEntries(tables_.header.refcount_table_offset, changes.refcount_table));
  }
  if (!changes.l2.empty() || !changes.l1.empty()) {
    CO_RETURN_IF_ERROR(co_await file.Sync());  // W1, W2
    changes.can_be_linked = true;
    CO_RETURN_IF_ERROR(co_await WriteRuns(file, changes.l2));
    CO_RETURN_IF_ERROR(co_await WriteEntries(tables_.header.l1_offset, changes.l1));
  }
  co_return co_await file.Sync();  // W4
}

}  // namespace gabion::qcow2
