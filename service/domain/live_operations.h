// The operations that are not done, and who runs and awaits them.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/base/log.h"
#include "service/domain/job.h"
#include "service/domain/job_runner.h"
#include "service/domain/live_job.h"
#include "service/domain/resource_locks.h"
#include "service/domain/wake_queue.h"
#include "service/store/metadata_store.h"

namespace gabion::service {

// Finds the rows of an operation when it is first asked for, and keeps it until it is done. Owned
// by the operation manager; any thread, which blocks.
class LiveOperations {
 public:
  // One of them.
  struct Live {
    Live(MetadataStore& store, google::longrunning::Operation operation, uint64_t revision,
         store::v1::Job stored, absl::StatusOr<std::unique_ptr<Job>> job,
         const LiveOperations& all);

    const std::string target;
    LiveJob rows;
    JobRunner runner;
  };
  using LivePtr = std::shared_ptr<Live>;

  // The references outlive this.
  LiveOperations(MetadataStore& store, ResourceLocks& locks, Logger& logger,
                 const RunnerOptions& options, int threads);
  ~LiveOperations() { queue_.Stop(); }

  void Register(store::v1::Job::WorkCase work, JobFactory factory);

  // Null if it is done, or if there is none.
  absl::StatusOr<LivePtr> Find(const std::string& name);
  size_t size() const;

  // The rows of an operation for `target` are about to be written.
  void Expect(std::string_view target, const std::string& name);
  // The one that works on `target`.
  std::optional<std::string> OperationOf(std::string_view target);

  // Runs a new one: its first piece on the calling thread.
  void Start(const std::string& name) { queue_.VisitHere(name); }
  // Runs one that may be new, if there is such a one, when its rows can be read.
  void StartLater(const std::string& name) { queue_.Add(name); }
  void Wake(const std::string& name) { queue_.Wake(name); }

  // See OperationManager.
  uint64_t WhenDone(const std::string& name, absl::AnyInvocable<void() &&> done);
  bool Withdraw(uint64_t id);
  absl::Status Recover();
  void Stop();

 private:
  struct Wait {
    std::string name;
    absl::AnyInvocable<void() &&> done;
  };

  absl::StatusOr<LivePtr> FindLocked(const std::string& name);
  WakeQueue::Next Visit(const std::string& name, bool here);
  void Forget(const Live& live);
  absl::Status RecoverJob(const Row& row);
  absl::Status RecoverOperation(const Row& row);
  std::vector<LivePtr> All() const;

  MetadataStore& store_;
  ResourceLocks& locks_;
  Logger& logger_;
  const RunnerOptions options_;

  mutable std::mutex mutex_;  // held while rows are read, so that what is done is not found again
  std::map<store::v1::Job::WorkCase, JobFactory> factories_;
  std::map<std::string, LivePtr> live_;
  std::map<std::string, std::string, std::less<>> targets_;  // to operations, expected or live
  std::map<uint64_t, Wait> waits_;
  uint64_t last_wait_ = 0;

  WakeQueue queue_;  // last: its threads use the others
};

}  // namespace gabion::service
