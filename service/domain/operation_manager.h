// Operations: what callers see of jobs, and what they can do with them.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/base/log.h"
#include "gabion/store/v1/records.pb.h"
#include "gabion/v1/job.pb.h"
#include "google/longrunning/operations.pb.h"
#include "service/domain/call.h"
#include "service/domain/job.h"
#include "service/domain/job_runner.h"
#include "service/domain/operation_rows.h"
#include "service/domain/page_token.h"
#include "service/domain/request_log.h"
#include "service/domain/resource_locks.h"
#include "service/store/metadata_store.h"

namespace gabion::service {

// What a dry run answers, and a call that found nothing to do: done, without a name, not kept.
google::longrunning::Operation Unnamed(const google::protobuf::Message& response);

struct OperationOptions : RunnerOptions {
  int threads = 2;         // on which jobs work
  size_t max_jobs = 1000;  // not done; more: TOO_MANY_JOBS
};

// An operation is a row (google.longrunning.Operation with gabion.v1.JobMetadata) that stays until
// it is deleted or expires, and while it is not done a row in "jobs" with its work and checkpoint.
// Both are written in the transactions of the effects. Owned by the domain; any thread of the
// executor, which blocks.
class OperationManager {
 public:
  // All of them outlive this.
  OperationManager(MetadataStore& store, ResourceLocks& locks, const PageTokens& tokens,
                   Logger& logger, OperationOptions options);
  ~OperationManager();

  // Which factory makes the jobs of one kind of stored work (Job.work_case()). At start.
  void Register(store::v1::Job::WorkCase work, JobFactory factory);

  // Adds the rows of a new operation to `steps`, which the caller commits with what it is about:
  // operation, job, and the call's request as answered by the operation. The operation's name.
  // RESOURCE_EXHAUSTED TOO_MANY_JOBS.
  absl::StatusOr<std::string> Begin(const Call& call, v1::JobMetadata::Kind kind,
                                    std::string_view target, store::v1::Job work,
                                    std::vector<Mutation>* steps);
  // After that commit, always, without a lock on a resource: does the first piece right here, hands
  // what is left to the runner, and returns the operation as it is then. So short work is done when
  // the call answers.
  absl::StatusOr<google::longrunning::Operation> Start(const std::string& name);
  // Adds the rows of an operation that ends in this same transaction with `response`.
  static google::longrunning::Operation AddDone(const Call& call, v1::JobMetadata::Kind kind,
                                                std::string_view target,
                                                const google::protobuf::Message& response,
                                                std::vector<Mutation>* steps);

  // For jobs, in Work() and before an effect without a way back, and for who asks more of a job
  // that is under way: writes what it must know of itself after a restart, with `steps` in the same
  // transaction.
  absl::Status SaveWork(const std::string& name, store::v1::Job work,
                        std::vector<Mutation> steps = {});
  // What SaveWork() wrote last, or Begin(). OPERATION_DONE.
  absl::StatusOr<store::v1::Job> Work(const std::string& name) const;
  // The operation that is not done and works on `target`.
  std::optional<std::string> OperationOf(std::string_view target) const;

  absl::StatusOr<google::longrunning::Operation> Get(const std::string& name) const;
  absl::StatusOr<google::longrunning::ListOperationsResponse> List(
      const google::longrunning::ListOperationsRequest& request) const;
  // Asks it to stop, and that is written; OK for one that is done.
  absl::Status Cancel(const std::string& name);
  // Forgets one that is done. OPERATION_NOT_DONE.
  absl::Status Delete(const std::string& name);
  // Calls `done` once, on any thread, which it does not block: when the operation is done, or at
  // once if it is or if there is none. The id takes it back.
  uint64_t WhenDone(const std::string& name, absl::AnyInvocable<void() &&> done);
  // True: it was not and will not be called.
  bool Withdraw(uint64_t id);

  // What is asked for is written before they answer, with the call's request. A job that is on its
  // way to its end already goes on to it when it is paused.
  absl::StatusOr<google::longrunning::Operation> Pause(const v1::PauseJobRequest& request,
                                                       const Call& call);
  absl::StatusOr<google::longrunning::Operation> Resume(const v1::ResumeJobRequest& request,
                                                        const Call& call);
  absl::StatusOr<google::longrunning::Operation> SetRate(const v1::SetJobRateRequest& request,
                                                         const Call& call);
  // Something that a job waits for has happened (a client has left an export): try it now.
  void Wake(const std::string& name);

  // Goes on with every job that the last run left. Call once, when all factories are registered and
  // the resources are recovered.
  absl::Status Recover();
  // Forgets operations that have been done for longer than `age`. In pieces.
  absl::Status Expire(std::chrono::seconds age);
  // Lets pieces that are under way end, writes checkpoints, starts nothing more. Who still waits by
  // WhenDone() is not called.
  void Stop();

 private:
  struct Impl;
  const std::unique_ptr<Impl> impl_;
};

}  // namespace gabion::service
