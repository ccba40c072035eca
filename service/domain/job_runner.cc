#include "service/domain/job_runner.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/text.h"
#include "service/domain/identity.h"
#include "service/errors.h"

namespace gabion::service {
namespace {

using v1::JobMetadata;

constexpr uint64_t kSmallestPiece = uint64_t{64} << 10;
constexpr int kPiecesPerSecond = 4;

absl::Status Cancelled(const std::string& operation) {
  return Error(reason::kOperationCancelled, absl::StrCat(operation, " was cancelled."))
      .Metadata("operation", operation);
}

}  // namespace

uint64_t PieceBudget(uint64_t piece_bytes, uint64_t limit_bytes_per_second) {
  if (limit_bytes_per_second == 0) return piece_bytes;
  return std::min(piece_bytes, std::max(kSmallestPiece, limit_bytes_per_second / kPiecesPerSecond));
}

WakeQueue::Clock::duration PieceTime(uint64_t bytes, uint64_t limit_bytes_per_second) {
  if (limit_bytes_per_second == 0) return {};
  constexpr double kLongestSeconds = 30.0 * 24 * 3600;
  const double seconds = static_cast<double>(bytes) / static_cast<double>(limit_bytes_per_second);
  return std::chrono::duration_cast<WakeQueue::Clock::duration>(
      std::chrono::duration<double>(std::min(seconds, kLongestSeconds)));
}

JobRunner::JobRunner(LiveJob& rows, absl::StatusOr<std::unique_ptr<Job>> job, ResourceLocks& locks,
                     Logger& logger, const RunnerOptions& options)
    : rows_(rows),
      job_(job.ok() ? std::move(*job) : nullptr),
      moves_bytes_(job_ != nullptr && job_->MovesBytes()),
      locks_(locks),
      logger_(logger),
      options_(options),
      written_(Clock::now()),
      wait_(options.first_retry) {
  const LiveJob::Said said = rows_.said();
  done_bytes_ = said.stored.checkpoint_bytes();
  if (job_ == nullptr) {
    why_ = job.status();
  } else if (said.stored.has_failure()) {
    why_ = FromRpcStatus(said.stored.failure());
    undo_written_ = true;
  }
  if (!why_.ok()) phase_ = Phase::kUndo;
}

WakeQueue::Next JobRunner::Visit(bool here) {
  if (rows_.done()) return Ended();
  if (phase_ == Phase::kUndo) return Undo();
  const LiveJob::Said said = rows_.said();
  if (said.metadata.cancel_requested() && !finished_ && job_->CanCancel()) {
    return Fail(Cancelled(rows_.name()));
  }
  if (said.metadata.state() == JobMetadata::STATE_PAUSED) {
    return Write() ? WakeQueue::Next{.due = WakeQueue::kWhenWoken} : Later();  // how far it came
  }
  return phase_ == Phase::kFinish ? Finish(here) : Work(said, here);
}

WakeQueue::Next JobRunner::Work(const LiveJob::Said& said, bool here) {
  const uint64_t limit = said.metadata.limit_bytes_per_second();
  const Clock::time_point now = Clock::now();
  const Clock::time_point due = piece_begin_ + PieceTime(piece_bytes_, limit);
  if (now < due) return {.due = due};
  if (!said.metadata.has_start_time()) {
    rows_.Note([](LiveJob::Said* noted) {
      *noted->metadata.mutable_start_time() = Now();
      if (noted->metadata.state() == JobMetadata::STATE_QUEUED) {
        noted->metadata.set_state(JobMetadata::STATE_RUNNING);
      }
    });
    if (!here) Write();
  }
  const absl::StatusOr<JobProgress> progress =
      job_->Work(done_bytes_, PieceBudget(options_.piece_bytes, limit));
  if (!progress.ok()) return Failed(progress.status());
  return Progressed(*progress, now, here);
}

WakeQueue::Next JobRunner::Progressed(const JobProgress& progress, Clock::time_point begin,
                                      bool here) {
  const uint64_t before = std::exchange(done_bytes_, progress.done_bytes);
  const bool moved = done_bytes_ != before || progress.complete;
  piece_bytes_ = done_bytes_ - std::min(before, done_bytes_);
  piece_begin_ = begin;
  bool passed = false;  // what was in the way
  rows_.Note([&](LiveJob::Said* noted) {
    noted->metadata.set_done_bytes(progress.done_bytes);
    noted->metadata.set_total_bytes(progress.total_bytes);
    noted->stored.set_checkpoint_bytes(progress.done_bytes);
    passed = noted->metadata.has_last_transient_error();
    noted->metadata.clear_last_transient_error();
  });
  if (moved) wait_ = options_.first_retry;
  if (progress.complete) {
    phase_ = Phase::kFinish;
    return Finish(here);
  }
  if (here || passed || Clock::now() - written_ >= options_.checkpoint_every) Write();
  if (moved) return {};
  return progress.wait.count() > 0 ? WakeQueue::Next{.due = Clock::now() + progress.wait} : Later();
}

WakeQueue::Next JobRunner::Finish(bool here) {
  bool paused = false;
  rows_.Note([&](LiveJob::Said* noted) {
    paused = noted->metadata.state() == JobMetadata::STATE_PAUSED;
    if (!paused) noted->metadata.set_state(JobMetadata::STATE_FINALIZING);
  });
  if (!here) Write();
  if (paused) return {.due = WakeQueue::kWhenWoken};
  absl::Status error;
  {
    const ResourceLocks::Guard guard = locks_.Lock(job_->Locks());
    const absl::StatusOr<JobOutcome> outcome = job_->Finish();
    finished_ = outcome.ok();
    if (finished_) return End(*outcome, outcome->response);
    error = outcome.status();
  }
  return Failed(error);
}

WakeQueue::Next JobRunner::Failed(const absl::Status& error) {
  const bool passes = absl::IsUnavailable(error) || absl::IsResourceExhausted(error);
  if (!passes || !job_->RetriesTransient()) return Fail(error);
  rows_.Note([&](LiveJob::Said* noted) {
    *noted->metadata.mutable_last_transient_error() = ToRpcStatus(error, rows_.name());
  });
  Write();
  return Later();
}

WakeQueue::Next JobRunner::Fail(const absl::Status& why) {
  phase_ = Phase::kUndo;
  why_ = why;
  if (absl::IsInternal(why) || absl::IsUnknown(why)) Warn("failed", why);  // callers are not told
  return Undo();
}

WakeQueue::Next JobRunner::Undo() {
  if (job_ == nullptr) return End({}, why_);
  if (!undo_written_) {
    rows_.Note([&](LiveJob::Said* noted) {
      noted->metadata.set_state(JobMetadata::STATE_CANCELLING);
      *noted->stored.mutable_failure() = ToRpcStatus(why_, rows_.name());
    });
    undo_written_ = Write();
    if (!undo_written_) return Later();  // (1)
    if (rows_.done()) return Ended();
  }
  if (!put_away_) {
    const absl::StatusOr<bool> all = job_->PutAway(options_.piece_bytes);
    if (!all.ok()) {
      Warn("could not be undone and is tried again", all.status());
      return Later();
    }
    put_away_ = *all;
    if (!put_away_) {
      wait_ = options_.first_retry;
      return {};  // others have their turn in between
    }
  }
  const ResourceLocks::Guard guard = locks_.Lock(job_->Locks());
  const absl::StatusOr<JobOutcome> outcome = job_->Undo(why_);
  if (outcome.ok()) return End(*outcome, why_);
  put_away_ = false;
  Warn("could not be undone and is tried again", outcome.status());
  return Later();
}

WakeQueue::Next JobRunner::End(const JobOutcome& outcome,
                               const absl::StatusOr<google::protobuf::Any>& result) {
  const absl::Status status = rows_.End(outcome.steps, result);  // (2)
  if (status.ok()) {
    if (outcome.committed) outcome.committed();
    return {.done = true};
  }
  committed_ = outcome.committed;
  Warn("has an outcome that could not be written and is tried again", status);
  return Later();
}

WakeQueue::Next JobRunner::Ended() {
  if (committed_) {
    const ResourceLocks::Guard guard = locks_.Lock(job_->Locks());
    committed_();
  }
  return {.done = true};
}

WakeQueue::Next JobRunner::Later() {
  const std::chrono::milliseconds wait = wait_;
  wait_ = std::min(2 * wait_, options_.longest_retry);
  return {.due = Clock::now() + wait};
}

bool JobRunner::Write() {
  const absl::Status status = rows_.Write();
  if (!status.ok()) {
    Warn("has progress that could not be written", status);
    return false;
  }
  written_ = Clock::now();
  return true;
}

void JobRunner::Warn(std::string_view what, const absl::Status& status) {
  logger_.Log(LogLevel::kWarning, "jobs",
              absl::StrCat(rows_.name(), " ", AsAbsl(what), ": ", status.ToString()));
}

}  // namespace gabion::service
