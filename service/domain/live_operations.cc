#include "service/domain/live_operations.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "service/domain/identity.h"
#include "service/domain/operation_rows.h"
#include "service/errors.h"

namespace gabion::service {

using google::longrunning::Operation;
using v1::JobMetadata;

namespace {

// What the last run left, for this one.
void Resurrected(LiveJob::Said* said) {
  JobMetadata& metadata = said->metadata;
  if (metadata.has_start_time() || said->stored.checkpoint_bytes() > 0) {
    metadata.set_resumed_after_restart(true);
  }
  metadata.set_done_bytes(said->stored.checkpoint_bytes());
  if (metadata.state() == JobMetadata::STATE_FINALIZING) {
    metadata.set_state(JobMetadata::STATE_RUNNING);  // the last piece is looked at again
  }
}

}  // namespace

LiveOperations::Live::Live(MetadataStore& store, Operation operation, uint64_t revision,
                           store::v1::Job stored, absl::StatusOr<std::unique_ptr<Job>> job,
                           const LiveOperations& all)
    : target(MetadataOf(operation).target()),
      rows(store, std::move(operation), revision, std::move(stored)),
      runner(rows, std::move(job), all.locks_, all.logger_, all.options_) {}

LiveOperations::LiveOperations(MetadataStore& store, ResourceLocks& locks, Logger& logger,
                               const RunnerOptions& options, int threads)
    : store_(store),
      locks_(locks),
      logger_(logger),
      options_(options),
      queue_(threads, [this](const std::string& name, bool here) { return Visit(name, here); }) {}

void LiveOperations::Register(store::v1::Job::WorkCase work, JobFactory factory) {
  const std::lock_guard lock(mutex_);
  factories_[work] = std::move(factory);
}

absl::StatusOr<LiveOperations::LivePtr> LiveOperations::Find(const std::string& name) {
  const std::lock_guard lock(mutex_);
  return FindLocked(name);
}

size_t LiveOperations::size() const {
  const std::lock_guard lock(mutex_);
  return live_.size();
}

void LiveOperations::Expect(std::string_view target, const std::string& name) {
  const std::lock_guard lock(mutex_);
  constexpr size_t kExpected = 1024;  // and more have not come to be
  if (targets_.size() > 2 * live_.size() + kExpected) {
    std::erase_if(targets_, [&](const auto& entry) { return !live_.contains(entry.second); });
  }
  std::string& known = targets_[std::string(target)];
  if (!live_.contains(known)) known = name;
}

std::optional<std::string> LiveOperations::OperationOf(std::string_view target) {
  const std::lock_guard lock(mutex_);
  const auto found = targets_.find(target);
  if (found == targets_.end()) return std::nullopt;
  const std::string name = found->second;
  // What is expected may not have come to be.
  const absl::StatusOr<LivePtr> live = FindLocked(name);
  if (!live.ok() || *live == nullptr) return std::nullopt;
  return name;
}

absl::StatusOr<LiveOperations::LivePtr> LiveOperations::FindLocked(const std::string& name) {
  const auto found = live_.find(name);
  if (found != live_.end()) return found->second;
  const absl::StatusOr<Row> row = store_.Get(kOperations, name);
  if (absl::IsNotFound(row.status())) return nullptr;
  if (!row.ok()) return row.status();
  ASSIGN_OR_RETURN(Operation operation, ParseOperation(*row));
  if (operation.done()) return nullptr;
  const absl::StatusOr<Row> job_row = store_.Get(kJobs, name);
  if (absl::IsNotFound(job_row.status())) return nullptr;
  if (!job_row.ok()) return job_row.status();
  store::v1::Job stored;
  if (!stored.ParseFromString(job_row->value)) {
    return absl::DataLossError(absl::StrCat("The stored job of ", name, " is damaged."));
  }
  absl::StatusOr<std::unique_ptr<Job>> job = Interrupted(name, "nothing knows its work.");
  const auto factory = factories_.find(stored.work_case());
  if (factory != factories_.end()) job = factory->second(name, MetadataOf(operation), stored);
  auto live = std::make_shared<Live>(store_, std::move(operation), row->revision, std::move(stored),
                                     std::move(job), *this);
  live_.emplace(name, live);
  targets_[live->target] = name;
  return live;
}

uint64_t LiveOperations::WhenDone(const std::string& name, absl::AnyInvocable<void() &&> done) {
  uint64_t id;
  {
    const std::lock_guard lock(mutex_);
    id = ++last_wait_;
    const absl::StatusOr<LivePtr> live = FindLocked(name);
    if (live.ok() && *live != nullptr) {
      waits_.emplace(id, Wait{name, std::move(done)});
      return id;
    }
  }
  std::move(done)();
  return id;
}

bool LiveOperations::Withdraw(uint64_t id) {
  absl::AnyInvocable<void() &&> withdrawn;  // destroyed without the lock
  const std::lock_guard lock(mutex_);
  const auto found = waits_.find(id);
  if (found == waits_.end()) return false;
  withdrawn = std::move(found->second.done);
  waits_.erase(found);
  return true;
}

WakeQueue::Next LiveOperations::Visit(const std::string& name, bool here) {
  const absl::StatusOr<LivePtr> live = Find(name);
  if (!live.ok()) return {.due = WakeQueue::Clock::now() + options_.first_retry};
  if (*live == nullptr) return {.done = true};  // it has not come to be
  const WakeQueue::Next next = (*live)->runner.Visit(here);
  if (next.done) Forget(**live);
  return next;
}

void LiveOperations::Forget(const Live& live) {
  const std::string& name = live.rows.name();
  std::vector<absl::AnyInvocable<void() &&>> waiting;
  {
    const std::lock_guard lock(mutex_);
    const auto target = targets_.find(live.target);
    if (target != targets_.end() && target->second == name) targets_.erase(target);
    for (auto it = waits_.begin(); it != waits_.end();) {
      if (it->second.name == name) {
        waiting.push_back(std::move(it->second.done));
        it = waits_.erase(it);
      } else {
        ++it;
      }
    }
    live_.erase(name);
  }
  for (auto& done : waiting) std::move(done)();
}

absl::Status LiveOperations::RecoverJob(const Row& row) {
  ASSIGN_OR_RETURN(const LivePtr live, Find(row.name));
  if (live != nullptr) {
    if (queue_.Has(row.name)) return absl::OkStatus();  // begun in this run
    live->rows.Note(Resurrected);
    return live->rows.Write();
  }
  std::vector<Mutation> steps = {Remove(kJobs, row.name)};
  const absl::StatusOr<Row> operation = store_.Get(kOperations, row.name);
  if (absl::IsNotFound(operation.status())) {
    Operation ended;
    ended.set_name(row.name);
    JobMetadata metadata;
    metadata.set_state(JobMetadata::STATE_DONE);
    *metadata.mutable_end_time() = Now();
    ended.mutable_metadata()->PackFrom(metadata);
    SetResult(Interrupted(row.name, "its record was lost."), &ended);
    steps.push_back(InsertOperation(ended));
  } else if (!operation.ok()) {
    return operation.status();
  }
  return store_.Commit(steps).status();
}

absl::Status LiveOperations::RecoverOperation(const Row& row) {
  ASSIGN_OR_RETURN(Operation operation, ParseOperation(row));
  if (operation.done()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const LivePtr live, Find(row.name));
  if (live != nullptr) return absl::OkStatus();
  JobMetadata metadata = MetadataOf(operation);
  metadata.set_state(JobMetadata::STATE_DONE);
  *metadata.mutable_end_time() = Now();
  operation.mutable_metadata()->PackFrom(metadata);
  SetResult(Interrupted(row.name, "its work was lost."), &operation);
  const absl::Status status =
      store_.Commit({Replace(kOperations, row.name, operation.SerializeAsString(), row.revision)})
          .status();
  const bool changed = absl::IsAborted(status) || absl::IsNotFound(status);  // it has just ended
  return changed ? absl::OkStatus() : status;
}

absl::Status LiveOperations::Recover() {
  const auto recover = [this](auto recover_row) {
    return [this, recover_row](const std::vector<Row>& rows) {
      for (const Row& row : rows) RETURN_IF_ERROR((this->*recover_row)(row));
      return absl::OkStatus();
    };
  };
  RETURN_IF_ERROR(ForEachPage(store_, kJobs, recover(&LiveOperations::RecoverJob)));
  RETURN_IF_ERROR(ForEachPage(store_, kOperations, recover(&LiveOperations::RecoverOperation)));
  for (const LivePtr& live : All()) queue_.Add(live->rows.name());
  return absl::OkStatus();
}

void LiveOperations::Stop() {
  queue_.Stop();
  for (const LivePtr& live : All()) {
    const absl::Status status = live->rows.Write();
    if (!status.ok()) {
      logger_.Log(LogLevel::kWarning, "jobs",
                  absl::StrCat(live->rows.name(),
                               " starts again from an older checkpoint: ", status.ToString()));
    }
  }
}

std::vector<LiveOperations::LivePtr> LiveOperations::All() const {
  const std::lock_guard lock(mutex_);
  std::vector<LivePtr> all;
  for (const auto& [name, live] : live_) all.push_back(live);
  return all;
}

}  // namespace gabion::service
