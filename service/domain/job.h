// Work that may outlast the call that asks for it: what a kind of job does. How jobs run, pause,
// fail and survive a restart is the same for all (job_runner.h).
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gabion/store/v1/records.pb.h"
#include "gabion/v1/job.pb.h"
#include "google/protobuf/any.pb.h"
#include "service/store/metadata_store.h"

namespace gabion::service {

// How far a job is.
struct JobProgress {
  uint64_t done_bytes = 0;   // for certain: a restart may go on from here
  uint64_t total_bytes = 0;  // 0: it has no bytes
  bool complete = false;     // Finish() is next
  // Where nothing could be done: it is tried again after this, or when it is woken. 0: after a time
  // that doubles.
  std::chrono::milliseconds wait{0};
};

// What is written when a job ends, in one transaction with the operation's end.
struct JobOutcome {
  std::vector<Mutation> steps;
  google::protobuf::Any response;   // unset after Undo()
  std::function<void()> committed;  // called once they are written, still under the locks: whoever
                                    // has seen them waits for these. May be empty. After a restart
                                    // nobody calls it: memory is new then.
};

// One job. Made anew from its stored work after a restart, so that it keeps no state that is not
// stored. Owned by the runner, which calls it on one thread at a time; calls may block.
class Job {
 public:
  virtual ~Job() = default;

  // Names of the resources that are locked around Finish() and Undo(): both are quick, because
  // calls wait for them.
  virtual std::vector<std::string> Locks() const = 0;

  // Does the next piece, about `budget_bytes` from `from_bytes` (what an earlier piece returned as
  // done; after a restart, the last checkpoint): a repeated piece is right, too. A job that waits
  // for something returns what it got. It is asked again later, or when it is woken. UNAVAILABLE
  // and RESOURCE_EXHAUSTED are tried again later (JobMetadata.last_transient_error) if
  // RetriesTransient(); every other error fails the job.
  virtual absl::StatusOr<JobProgress> Work(uint64_t from_bytes, uint64_t budget_bytes) = 0;

  // Under the locks, when the work is complete: the outcome. Can be called again after a crash.
  virtual absl::StatusOr<JobOutcome> Finish() = 0;

  // When the job has failed or is cancelled: puts away the next piece, about `budget_bytes`, of
  // what the work has left. Without the locks, so that nobody waits for it. True: that was all, and
  // Undo() is next. Can be called again after a crash.
  virtual absl::StatusOr<bool> PutAway(uint64_t /*budget_bytes*/) { return true; }

  // Under the locks, when the job has failed by `why` or is cancelled and all is put away: says
  // what is written. An error: PutAway() is next, once more. Can be called again after a crash.
  virtual absl::StatusOr<JobOutcome> Undo(const absl::Status& why) = 0;

  // False: past the point of no return; it is finished instead of cancelled.
  virtual bool CanCancel() const { return true; }
  // True: waits and tries again instead of failing.
  virtual bool RetriesTransient() const { return false; }
  // True: it moves bytes, so that it can be paused and slowed down.
  virtual bool MovesBytes() const { return true; }
};

// Makes the job of an operation from what is stored. An error ends the operation with it. Called
// while the manager of operations is locked: it asks nothing of it.
using JobFactory = std::function<absl::StatusOr<std::unique_ptr<Job>>(
    const std::string& operation, const v1::JobMetadata& metadata, const store::v1::Job& stored)>;

}  // namespace gabion::service
