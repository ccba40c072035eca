// How a job runs: piece by piece, as fast as it may, again after errors that pass, to its outcome.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/base/log.h"
#include "gabion/v1/job.pb.h"
#include "service/domain/job.h"
#include "service/domain/live_job.h"
#include "service/domain/resource_locks.h"
#include "service/domain/wake_queue.h"

namespace gabion::service {

struct RunnerOptions {
  uint64_t piece_bytes = uint64_t{16} << 20;  // of work between two looks at what is asked for
  std::chrono::milliseconds checkpoint_every{1000};  // progress is written this often
  std::chrono::milliseconds first_retry{500};        // after a transient error; doubles
  std::chrono::milliseconds longest_retry{30'000};
};

// How much a job that may do `limit_bytes_per_second` (0: no limit) does at a time: so little that
// it takes up another limit soon.
uint64_t PieceBudget(uint64_t piece_bytes, uint64_t limit_bytes_per_second);

// How long a piece of `bytes` takes at that limit.
WakeQueue::Clock::duration PieceTime(uint64_t bytes, uint64_t limit_bytes_per_second);

// Runs one job. Owned by the operation manager; one thread at a time, which blocks.
//
// (1) What a job was doing is known after a crash: that it is being undone, and why, is written
//     before anything is put away; all else is done again from the last checkpoint.
// (2) The outcome and the operation's end are one transaction, so that there is one outcome.
class JobRunner {
 public:
  using Clock = WakeQueue::Clock;

  // `job` or the error that ends the operation. All references outlive this.
  JobRunner(LiveJob& rows, absl::StatusOr<std::unique_ptr<Job>> job, ResourceLocks& locks,
            Logger& logger, const RunnerOptions& options);

  bool moves_bytes() const { return moves_bytes_; }

  // Does what is next, at most one piece of work. `here`: for the call that started the job, so
  // that rows which the outcome will replace at once are not written before.
  WakeQueue::Next Visit(bool here);

 private:
  enum class Phase { kWork, kFinish, kUndo };

  WakeQueue::Next Work(const LiveJob::Said& said, bool here);
  WakeQueue::Next Progressed(const JobProgress& progress, Clock::time_point begin, bool here);
  WakeQueue::Next Finish(bool here);
  // The job cannot have its effect.
  WakeQueue::Next Fail(const absl::Status& why);
  WakeQueue::Next Undo();
  // Waits and tries again if the error may pass, else fails.
  WakeQueue::Next Failed(const absl::Status& error);
  WakeQueue::Next End(const JobOutcome& outcome,
                      const absl::StatusOr<google::protobuf::Any>& result);
  // It has ended, and only now that is known: the answer of that commit was lost.
  WakeQueue::Next Ended();
  WakeQueue::Next Later();
  // Writes the rows; false, and it is logged: they could not be written.
  bool Write();
  void Warn(std::string_view what, const absl::Status& status);

  LiveJob& rows_;
  const std::unique_ptr<Job> job_;  // null: there is none, because of why_
  const bool moves_bytes_;
  ResourceLocks& locks_;
  Logger& logger_;
  const RunnerOptions& options_;

  Phase phase_ = Phase::kWork;
  bool finished_ = false;  // Finish() has had its effect: there is no way back
  bool undo_written_ = false;
  bool put_away_ = false;            // all that the work has left
  absl::Status why_;                 // kUndo
  std::function<void()> committed_;  // of the outcome that was last tried to be written
  uint64_t done_bytes_ = 0;
  uint64_t piece_bytes_ = 0;  // of the last piece, which began then
  Clock::time_point piece_begin_;
  Clock::time_point written_;  // progress, the last time
  std::chrono::milliseconds wait_;
};

}  // namespace gabion::service
