#include "service/domain/operation_manager.h"

#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/base/text.h"
#include "google/protobuf/empty.pb.h"
#include "service/domain/identity.h"
#include "service/domain/list_query.h"
#include "service/domain/lister.h"
#include "service/domain/live_job.h"
#include "service/domain/live_operations.h"
#include "service/errors.h"
#include "service/names.h"

namespace gabion::service {

using google::longrunning::Operation;
using v1::JobMetadata;

namespace {

Operation NewOperation(JobMetadata::Kind kind, std::string_view target, JobMetadata* metadata) {
  metadata->set_kind(kind);
  metadata->set_state(JobMetadata::STATE_QUEUED);
  metadata->set_target(std::string(target));
  *metadata->mutable_create_time() = Now();
  Operation operation;
  operation.set_name(MakeName(kOperations, NewUid()));
  operation.mutable_metadata()->PackFrom(*metadata);
  return operation;
}

// Removes rows as they were read; those that have changed or gone since are left alone.
absl::Status RemoveAll(MetadataStore& store, const std::vector<Mutation>& steps) {
  if (steps.empty()) return absl::OkStatus();
  const absl::Status all = store.Commit(steps).status();
  if (!absl::IsNotFound(all) && !absl::IsAborted(all)) return all;
  for (const Mutation& step : steps) {
    const absl::Status one = store.Commit({step}).status();
    if (!one.ok() && !absl::IsNotFound(one) && !absl::IsAborted(one)) return one;
  }
  return absl::OkStatus();
}

void Pausing(LiveJob::Said* said) {
  JobMetadata& metadata = said->metadata;
  const bool works = metadata.state() == JobMetadata::STATE_QUEUED ||
                     metadata.state() == JobMetadata::STATE_RUNNING;
  if (works && !metadata.cancel_requested()) metadata.set_state(JobMetadata::STATE_PAUSED);
}

void Resuming(LiveJob::Said* said) {
  JobMetadata& metadata = said->metadata;
  if (metadata.state() != JobMetadata::STATE_PAUSED) return;
  metadata.set_state(metadata.has_start_time() ? JobMetadata::STATE_RUNNING
                                               : JobMetadata::STATE_QUEUED);
}

absl::StatusOr<std::vector<Operation>> ParseAll(const std::vector<Row>& rows) {
  std::vector<Operation> operations;
  for (const Row& row : rows) {
    ASSIGN_OR_RETURN(operations.emplace_back(), ParseOperation(row));
  }
  return operations;
}

}  // namespace

Operation Unnamed(const google::protobuf::Message& response) {
  Operation operation;
  operation.set_done(true);
  operation.mutable_response()->PackFrom(response);
  return operation;
}

struct OperationManager::Impl {
  Impl(MetadataStore& the_store, ResourceLocks& locks, const PageTokens& the_tokens, Logger& logger,
       const OperationOptions& options)
      : store(the_store),
        tokens(the_tokens),
        max_jobs(options.max_jobs),
        live(store, locks, logger, options, options.threads) {}

  absl::StatusOr<Operation> Get(const std::string& name) const;
  // `bytes`: only for work that moves bytes.
  absl::StatusOr<Operation> Change(const std::string& name, const Call& call, bool bytes,
                                   LiveJob::Edit edit);

  MetadataStore& store;
  const PageTokens& tokens;
  const size_t max_jobs;
  LiveOperations live;
};

absl::StatusOr<Operation> OperationManager::Impl::Get(const std::string& name) const {
  const absl::StatusOr<Row> row = store.Get(kOperations, name);
  if (absl::IsNotFound(row.status())) return NotFound(kOperationType, name);
  if (!row.ok()) return row.status();
  return ParseOperation(*row);
}

absl::StatusOr<Operation> OperationManager::Impl::Change(const std::string& name, const Call& call,
                                                         bool bytes, LiveJob::Edit edit) {
  ASSIGN_OR_RETURN(const LiveOperations::LivePtr one, live.Find(name));
  if (one == nullptr) {
    RETURN_IF_ERROR(Get(name).status());
    return OperationDone(name);
  }
  if (bytes && !one->runner.moves_bytes()) {
    return Error(reason::kFeatureNotBuilt,
                 absl::StrCat(name, " moves no bytes: it cannot be paused or slowed down."));
  }
  if (call.validate_only) {
    ASSIGN_OR_RETURN(const Operation changed, one->rows.Try(edit));
    Operation told = Unnamed(google::protobuf::Empty());
    *told.mutable_metadata() = changed.metadata();
    return told;
  }
  std::vector<Mutation> steps;
  RequestLog::BeginOperation(call, name, &steps);
  ASSIGN_OR_RETURN(Operation changed, one->rows.Change(edit, std::move(steps)));
  live.Wake(name);
  return changed;
}

OperationManager::OperationManager(MetadataStore& store, ResourceLocks& locks,
                                   const PageTokens& tokens, Logger& logger,
                                   OperationOptions options)
    : impl_(std::make_unique<Impl>(store, locks, tokens, logger, options)) {}

OperationManager::~OperationManager() { Stop(); }

void OperationManager::Register(store::v1::Job::WorkCase work, JobFactory factory) {
  impl_->live.Register(work, std::move(factory));
}

absl::StatusOr<std::string> OperationManager::Begin(const Call& call, JobMetadata::Kind kind,
                                                    std::string_view target, store::v1::Job work,
                                                    std::vector<Mutation>* steps) {
  JobMetadata metadata;
  const Operation operation = NewOperation(kind, target, &metadata);
  if (impl_->live.size() >= impl_->max_jobs) {
    const std::string limit = std::to_string(impl_->max_jobs);
    const std::string message = absl::StrCat("There are ", limit, " operations already.");
    return Error(reason::kTooManyJobs, message)
        .Metadata("limit", limit)
        .Quota(kOperations, "Wait until some are done, or cancel some.");
  }
  impl_->live.Expect(target, operation.name());
  work.set_request(call.request);
  RequestLog::BeginOperation(call, operation.name(), steps);
  steps->push_back(Insert(kJobs, operation.name(), work.SerializeAsString()));
  steps->push_back(InsertOperation(operation));
  return operation.name();
}

absl::StatusOr<Operation> OperationManager::Start(const std::string& name) {
  ASSIGN_OR_RETURN(const LiveOperations::LivePtr live, impl_->live.Find(name));
  if (live == nullptr) return Get(name);
  impl_->live.Start(name);
  return live->rows.operation();
}

Operation OperationManager::AddDone(const Call& call, JobMetadata::Kind kind,
                                    std::string_view target,
                                    const google::protobuf::Message& response,
                                    std::vector<Mutation>* steps) {
  JobMetadata metadata;
  Operation operation = NewOperation(kind, target, &metadata);
  metadata.set_state(JobMetadata::STATE_DONE);
  *metadata.mutable_start_time() = metadata.create_time();
  *metadata.mutable_end_time() = metadata.create_time();
  operation.mutable_metadata()->PackFrom(metadata);
  operation.set_done(true);
  operation.mutable_response()->PackFrom(response);
  RequestLog::BeginOperation(call, operation.name(), steps);
  steps->push_back(InsertOperation(operation));
  return operation;
}

absl::Status OperationManager::SaveWork(const std::string& name, store::v1::Job work,
                                        std::vector<Mutation> steps) {
  ASSIGN_OR_RETURN(const LiveOperations::LivePtr live, impl_->live.Find(name));
  if (live == nullptr) return OperationDone(name);
  return live->rows
      .Change(
          [&](LiveJob::Said* said) {
            work.set_request(said->stored.request());
            work.set_checkpoint_bytes(said->stored.checkpoint_bytes());
            work.clear_failure();
            if (said->stored.has_failure()) *work.mutable_failure() = said->stored.failure();
            said->stored = work;
          },
          std::move(steps))
      .status();
}

absl::StatusOr<store::v1::Job> OperationManager::Work(const std::string& name) const {
  ASSIGN_OR_RETURN(const LiveOperations::LivePtr live, impl_->live.Find(name));
  if (live == nullptr || live->rows.done()) return OperationDone(name);
  return live->rows.said().stored;
}

std::optional<std::string> OperationManager::OperationOf(std::string_view target) const {
  return impl_->live.OperationOf(target);
}

absl::StatusOr<Operation> OperationManager::Get(const std::string& name) const {
  return impl_->Get(name);
}

absl::StatusOr<google::longrunning::ListOperationsResponse> OperationManager::List(
    const google::longrunning::ListOperationsRequest& request) const {
  if (!request.name().empty() && request.name() != kOperations) {
    constexpr std::string_view kMessage = "The name must be \"operations\", or left out.";
    return Error(reason::kNameInvalid, kMessage)
        .Metadata("value", request.name())
        .Metadata("allowed", kOperations)
        .Field("name", kMessage);
  }
  google::longrunning::ListOperationsRequest asked = request;
  asked.clear_name();
  ASSIGN_OR_RETURN(const ListQuery query,
                   ListQuery::Parse(asked, Operation::descriptor(), impl_->tokens));
  ASSIGN_OR_RETURN(Listed<Operation> listed,
                   ListRows<Operation>(impl_->store, kOperations, {}, query, ParseAll));
  google::longrunning::ListOperationsResponse response;
  response.mutable_operations()->Assign(std::make_move_iterator(listed.resources.begin()),
                                        std::make_move_iterator(listed.resources.end()));
  response.set_next_page_token(std::move(listed.next_page_token));
  return response;
}

absl::Status OperationManager::Cancel(const std::string& name) {
  ASSIGN_OR_RETURN(const LiveOperations::LivePtr live, impl_->live.Find(name));
  if (live == nullptr) return Get(name).status();
  const absl::Status status =
      live->rows.Change([](LiveJob::Said* said) { said->metadata.set_cancel_requested(true); }, {})
          .status();
  if (!status.ok()) {
    return InfoOf(status).reason() == reason::kOperationDone.name ? absl::OkStatus() : status;
  }
  impl_->live.Wake(name);
  return absl::OkStatus();
}

absl::Status OperationManager::Delete(const std::string& name) {
  const absl::StatusOr<Row> row = impl_->store.Get(kOperations, name);
  if (absl::IsNotFound(row.status())) return NotFound(kOperationType, name);
  if (!row.ok()) return row.status();
  ASSIGN_OR_RETURN(const Operation operation, ParseOperation(*row));
  if (!operation.done()) {
    const std::string message = absl::StrCat(name, " is not done.");
    return Error(reason::kOperationNotDone, message)
        .Metadata("operation", name)
        .Precondition(name, "Cancel it, and wait until it is done.");
  }
  const absl::Status status =
      impl_->store.Commit({Remove(kOperations, name, row->revision)}).status();
  return absl::IsNotFound(status) ? NotFound(kOperationType, name) : status;
}

uint64_t OperationManager::WhenDone(const std::string& name, absl::AnyInvocable<void() &&> done) {
  return impl_->live.WhenDone(name, std::move(done));
}

bool OperationManager::Withdraw(uint64_t id) { return impl_->live.Withdraw(id); }

absl::StatusOr<Operation> OperationManager::Pause(const v1::PauseJobRequest& request,
                                                  const Call& call) {
  return impl_->Change(request.name(), call, true, Pausing);
}

absl::StatusOr<Operation> OperationManager::Resume(const v1::ResumeJobRequest& request,
                                                   const Call& call) {
  return impl_->Change(request.name(), call, false, Resuming);
}

absl::StatusOr<Operation> OperationManager::SetRate(const v1::SetJobRateRequest& request,
                                                    const Call& call) {
  return impl_->Change(request.name(), call, true, [&](LiveJob::Said* said) {
    said->metadata.set_limit_bytes_per_second(request.limit_bytes_per_second());
  });
}

void OperationManager::Wake(const std::string& name) { impl_->live.Wake(name); }

absl::Status OperationManager::Recover() { return impl_->live.Recover(); }

absl::Status OperationManager::Expire(std::chrono::seconds age) {
  const int64_t young = Now().seconds() - age.count();
  return ForEachPage(impl_->store, kOperations, [&](const std::vector<Row>& rows) -> absl::Status {
    std::vector<Mutation> steps;
    for (const Row& row : rows) {
      ASSIGN_OR_RETURN(const Operation operation, ParseOperation(row));
      const bool old = operation.done() && MetadataOf(operation).end_time().seconds() < young;
      if (old) steps.push_back(Remove(kOperations, row.name, row.revision));
    }
    return RemoveAll(impl_->store, steps);
  });
}

void OperationManager::Stop() { impl_->live.Stop(); }

}  // namespace gabion::service
