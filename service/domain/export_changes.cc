// The part of ExportManager that changes and deletes exports.
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "google/protobuf/empty.pb.h"
#include "google/protobuf/util/message_differencer.h"
#include "google/protobuf/util/time_util.h"
#include "service/domain/export_manager.h"
#include "service/domain/export_spec.h"
#include "service/domain/export_view.h"
#include "service/domain/filter_stack.h"
#include "service/domain/identity.h"
#include "service/errors.h"
#include "service/etag.h"
#include "service/names.h"
#include "service/validate.h"

namespace gabion::service {
namespace {

using google::longrunning::Operation;
using google::protobuf::util::MessageDifferencer;

constexpr int64_t kDefaultDrainSeconds = 30;

// True if both say the same about why an export cannot be served.
bool SameObstacle(const google::rpc::Status& told, const absl::Status& now) {
  const absl::Status a = FromRpcStatus(told);
  const absl::Status b = FromRpcStatus(ToRpcStatus(now));  // with the reason that it is told with
  return a.code() == b.code() && InfoOf(a).reason() == InfoOf(b).reason();
}

absl::Status BeingDeleted(const v1::Export& exported) {
  return Error(reason::kOperationInProgress, absl::StrCat(exported.name(), " is being deleted."))
      .Metadata("operation", exported.operation());
}

v1::CreateExportRequest CreationOf(const v1::UpdateExportRequest& request) {
  v1::CreateExportRequest creation;
  creation.set_export_id(std::string(IdOf(request.export_().name())));
  *creation.mutable_export_() = request.export_();
  return creation;
}

absl::Status CheckDrainTimeout(const v1::DeleteExportRequest& request) {
  const bool soft = request.mode() == v1::DeleteExportRequest::MODE_SOFT;
  if (soft || !request.has_drain_timeout()) return absl::OkStatus();
  constexpr std::string_view kMessage = "Only MODE_SOFT gives clients a time.";
  return Error(reason::kFieldInvalid, kMessage).Field("drain_timeout", kMessage);
}

store::v1::Job DrainWorkOf(const v1::DeleteExportRequest& request) {
  store::v1::Job job;
  store::v1::DrainWork& work = *job.mutable_drain();
  work.set_mode(request.mode() == v1::DeleteExportRequest::MODE_UNSPECIFIED
                    ? v1::DeleteExportRequest::MODE_SAFE
                    : request.mode());
  if (request.mode() == v1::DeleteExportRequest::MODE_SOFT) {
    google::protobuf::Duration timeout = request.drain_timeout();
    if (!request.has_drain_timeout()) timeout.set_seconds(kDefaultDrainSeconds);
    *work.mutable_deadline() = Now() + timeout;
  }
  return job;
}

}  // namespace

absl::StatusOr<v1::Export> ExportManager::Update(const v1::UpdateExportRequest& request,
                                                 const Call& call) {
  const std::string& name = request.export_().name();
  // The source cannot change, so that it is known before the locks are held.
  ASSIGN_OR_RETURN(const std::optional<StoredExport> seen, records_.Find(name));
  if (!seen.has_value() && !request.allow_missing()) return NotFound(kExportType, name);
  v1::Export asked = request.export_();
  if (seen.has_value()) asked.set_source(seen->resource.source());
  if (seen.has_value()) asked.set_nbd_name(seen->resource.nbd_name());
  ASSIGN_OR_RETURN(const ResourceLocks::Guard lock, LockAround(name, &asked, call.patience));
  RETURN_IF_ERROR(SettleChange(name));
  ASSIGN_OR_RETURN(const std::optional<StoredExport> before, records_.Find(name));
  if (before.has_value() != seen.has_value()) {
    return Error(reason::kConcurrentUpdate,
                 absl::StrCat(name, " was created or deleted meanwhile."));
  }
  if (before.has_value()) return UpdateExisting(*before, request, call);
  if (!request.export_().etag().empty()) {
    return Error(reason::kEtagMismatch,
                 absl::StrCat("There is no ", name, ", so that it does not have the etag given."));
  }
  RETURN_IF_ERROR(ValidateResource(request.export_(), "export"));
  ASSIGN_OR_RETURN(v1::Export exported, NewExport(CreationOf(request)));
  return Establish(std::move(exported), call);
}

absl::StatusOr<v1::Export> ExportManager::UpdateExisting(const StoredExport& before,
                                                         const v1::UpdateExportRequest& request,
                                                         const Call& call) {
  const v1::Export shown = Show({before.resource}).front();
  RETURN_IF_ERROR(CheckEtag(request.export_().etag(), shown));
  RETURN_IF_ERROR(CheckNotDeleted(before.resource));
  v1::Export after = before.resource;
  RETURN_IF_ERROR(ApplyUpdate(request, &after).status());
  return Bring(before, shown, std::move(after), ChangeAskedBy(request), call);
}

absl::Status ExportManager::CheckNotDeleted(const v1::Export& exported) {
  return exported.operation().empty() ? absl::OkStatus() : BeingDeleted(exported);
}

absl::StatusOr<v1::Export> ExportManager::AnswerAsItIs(const v1::Export& shown, const Call& call) {
  std::vector<Mutation> steps;
  RequestLog::BeginAnswered(call, shown, &steps);
  if (!steps.empty()) RETURN_IF_ERROR(context_.store.Commit(steps).status());
  return shown;
}

absl::StatusOr<v1::Export> ExportManager::Bring(const StoredExport& before, const v1::Export& shown,
                                                v1::Export after, const FilterChange& change,
                                                const Call& call) {
  if (!after.has_enabled()) after.set_enabled(true);
  RETURN_IF_ERROR(CompleteStack(&after));
  const bool changed = !MessageDifferencer::Equals(before.resource, after);
  RETURN_IF_ERROR(CheckIsBuilt(after));
  // What is wrong with a stack that stays keeps nobody from changing something else.
  v1::Export stack = before.resource;
  *stack.mutable_filter_stack() = after.filter_stack();
  if (!MessageDifferencer::Equals(before.resource, stack)) {
    RETURN_IF_ERROR(serving_.CheckStack(after, change, NeededBy(before.resource)));
  }
  RETURN_IF_ERROR(CheckImages(after, NeededBy(before.resource), WrittenBy(before.resource)));
  const bool failed = before.resource.state() == v1::Export::STATE_FAILED;
  if (!changed && !failed) return AnswerAsItIs(shown, call);
  if (changed) {
    after.set_generation(before.resource.generation() + 1);
    *after.mutable_update_time() = Now();
  }
  if (!call.validate_only) return Apply(before, std::move(after), change, call);
  const ExportServing::State planned = serving_.Check(after, change);
  if (planned.ok()) {
    SetServed(&after);
  } else if (failed && SameObstacle(after.state_error(), planned.status())) {
    *after.mutable_state_error() = ToRpcStatus(planned.status());
  } else {
    return planned.status();
  }
  return TellTrial(after, planned);
}

absl::StatusOr<v1::Export> ExportManager::Apply(const StoredExport& before, v1::Export after,
                                                const FilterChange& change, const Call& call) {
  const std::string name = after.name();
  store::v1::Intent intent;
  intent.set_request(call.request);
  *intent.mutable_update_export() = before.resource;
  std::vector<Mutation> steps = {Intents::Writing(name, intent)};
  RequestLog::Begin(call, &steps);
  context_.attachments.Tell(name, AttachedTo(after));
  Mutation save = records_.Saving(after, before.revision);
  const absl::StatusOr<StoredExport> begun =
      records_.Commit(std::move(steps), std::move(save), std::move(after));
  if (!begun.ok()) {
    const absl::StatusOr<StoredExport> now = records_.Get(name);
    if (now.ok() && now->revision == before.revision) {  // it was not written for certain
      context_.attachments.Tell(name, AttachedTo(before.resource));
      SettleAttachments(name);
    }
    return begun.status();
  }
  const StoredExport& written = *begun;
  v1::Export row = written.resource;
  const bool failed = row.state() == v1::Export::STATE_FAILED;
  const ExportServing::State state =
      failed ? serving_.ServeOrChange(row, change) : serving_.Change(row, change);
  if (state.ok()) {
    SetServed(&row);
    if (failed) reconciler_.Remove(name);
    return Settle(call.request, row, written.revision, Tell(row, state));
  }
  if (failed && SameObstacle(row.state_error(), state.status())) {
    *row.mutable_state_error() = ToRpcStatus(state.status());
    return Settle(call.request, row, written.revision, Tell(row, state));
  }
  RETURN_IF_ERROR(TakeBack(call.request, written, &before.resource));
  return state.status();
}

absl::StatusOr<Operation> ExportManager::Delete(const v1::DeleteExportRequest& request,
                                                const Call& call) {
  RETURN_IF_ERROR(CheckDrainTimeout(request));
  const std::string& name = request.name();
  std::string operation;
  {
    ASSIGN_OR_RETURN(const ResourceLocks::Guard lock,
                     context_.locks.LockFor(call.patience, {name}));
    ASSIGN_OR_RETURN(const std::optional<StoredExport> stored, records_.Find(name));
    if (!stored.has_value()) {
      if (!request.allow_missing()) return NotFound(kExportType, name);
      const Operation nothing = Unnamed(google::protobuf::Empty());
      std::vector<Mutation> steps;
      RequestLog::BeginAnswered(call, nothing, &steps);
      if (!steps.empty()) RETURN_IF_ERROR(context_.store.Commit(steps).status());
      return nothing;
    }
    const v1::Export shown = Show({stored->resource}).front();
    RETURN_IF_ERROR(CheckEtag(request.etag(), shown));
    if (!shown.operation().empty()) return JoinDrain(stored->resource, request, call);
    const bool safe = request.mode() == v1::DeleteExportRequest::MODE_UNSPECIFIED ||
                      request.mode() == v1::DeleteExportRequest::MODE_SAFE;
    if (safe && shown.connection_count() > 0) {
      return Error(reason::kExportHasConnections,
                   absl::StrCat(name, " has ", shown.connection_count(), " connection(s)."))
          .Metadata("export", name)
          .Precondition(name, "Close the connections first, or choose another mode.");
    }
    if (call.validate_only) return Unnamed(google::protobuf::Empty());
    ASSIGN_OR_RETURN(operation, BeginDrain(*stored, request, call));
  }
  return context_.operations.Start(operation);
}

absl::StatusOr<std::string> ExportManager::BeginDrain(const StoredExport& stored,
                                                      const v1::DeleteExportRequest& request,
                                                      const Call& call) {
  v1::Export exported = stored.resource;
  std::vector<Mutation> steps;
  ASSIGN_OR_RETURN(const std::string operation,
                   context_.operations.Begin(call, v1::JobMetadata::KIND_DRAIN, exported.name(),
                                             DrainWorkOf(request), &steps));
  // A change whose end could not be written ends here.
  RETURN_IF_ERROR(context_.intents.Clear(exported.name(), context_.requests, &steps));
  exported.set_state(v1::Export::STATE_DRAINING);
  exported.set_operation(operation);
  NoteServed(&exported);
  TouchFilters(exported.name(), &steps);
  steps.push_back(records_.Saving(exported, stored.revision));
  const absl::Status begun = context_.store.Commit(steps).status();
  if (!begun.ok()) context_.operations.StartIfBegun(operation);
  RETURN_IF_ERROR(begun);
  context_.attachments.Settle(exported.name());
  reconciler_.Remove(exported.name());
  return operation;
}

// Whoever asks for at least as much as is asked already joins a deletion that is under way.
absl::StatusOr<Operation> ExportManager::JoinDrain(const v1::Export& exported,
                                                   const v1::DeleteExportRequest& request,
                                                   const Call& call) {
  store::v1::Job asked = DrainWorkOf(request);
  ASSIGN_OR_RETURN(const store::v1::Job under_way, context_.operations.Work(exported.operation()));
  if (asked.drain().mode() < under_way.drain().mode()) return BeingDeleted(exported);
  if (call.validate_only) return Unnamed(google::protobuf::Empty());
  const bool both_soft = asked.drain().mode() == v1::DeleteExportRequest::MODE_SOFT &&
                         under_way.drain().mode() == v1::DeleteExportRequest::MODE_SOFT;
  if (both_soft && under_way.drain().deadline() < asked.drain().deadline()) asked = under_way;
  std::vector<Mutation> steps;
  RequestLog::BeginOperation(call, exported.operation(), &steps);
  RETURN_IF_ERROR(
      context_.operations.SaveWork(exported.operation(), std::move(asked), std::move(steps)));
  if (request.mode() == v1::DeleteExportRequest::MODE_HARD) {
    RETURN_IF_ERROR(serving_.Stop(exported, engine::DeleteMode::kHard));
  }
  context_.operations.Wake(exported.operation());
  return context_.operations.Get(exported.operation());
}

void ExportManager::ClientLeft(const std::string& name) {
  const absl::StatusOr<StoredExport> stored = records_.Get(name);
  if (!stored.ok()) return;
  if (!stored->resource.operation().empty()) {
    context_.operations.Wake(stored->resource.operation());
  }
  // It may have been the last one that was told something else: the time of that is now.
  if (context_.conditions.HasUnsatisfied(stored->resource.uid())) Show({stored->resource});
}

}  // namespace gabion::service
