// Who writes, and for whom: commits that come while the disk is busy are written together. Used by
// sqlite_store only.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <span>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "service/store/pending_commit.h"

namespace gabion::service {

// One caller at a time leads: it writes its own commit and those that had come by then, on its own
// thread, while later ones wait. So a lone caller waits for nobody, and of many callers each waits
// for two writes at most, until a group is full. Owned by the store; thread-safe.
class CommitQueue {
 public:
  // Sets the answers of the group. Called by one thread at a time, under no lock; the commits of
  // the group return after it, and the next group is written after it. Must not call Commit().
  using Write = absl::AnyInvocable<void(std::span<PendingCommit* const> group)>;

  // Of commits in a group: bounds what a commit waits for, and what one transaction can become.
  static constexpr size_t kMaxGroup = 64;

  explicit CommitQueue(Write write) : write_(std::move(write)) {}
  CommitQueue(const CommitQueue&) = delete;
  CommitQueue& operator=(const CommitQueue&) = delete;

  // Blocks until `steps` have been written; returns the answer. Commits are written in the order of
  // the calls.
  absl::StatusOr<uint64_t> Commit(const std::vector<Mutation>& steps);

  // How many calls wait for a group after the one that is being written.
  size_t waiting() const { return waiting_; }

 private:
  struct Caller;

  Write write_;  // by the leader only
  std::mutex mutex_;
  std::deque<Caller*> callers_;      // who waits, longest first; a leader's group is not in it
  std::atomic<size_t> waiting_ = 0;  // of callers_: read without the mutex
  bool led_ = false;                 // a group is being written
};

}  // namespace gabion::service
