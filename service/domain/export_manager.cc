#include "service/domain/export_manager.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/base/text.h"
#include "service/domain/await.h"
#include "service/domain/engine_errors.h"
#include "service/domain/export_spec.h"
#include "service/domain/identity.h"
#include "service/domain/resource_diff.h"
#include "service/errors.h"
#include "service/names.h"
#include "service/validate.h"

namespace gabion::service {
namespace {

EngineCall About(const v1::Export& exported) {
  EngineCall call;
  call.image = exported.source();
  call.export_name = exported.name();
  return call;
}

void Show(const engine::ExportState& state, const engine::EngineInfo& engine,
          v1::Export* exported) {
  exported->set_state(exported->enabled() ? v1::Export::STATE_ACTIVE : v1::Export::STATE_HIDDEN);
  *exported->mutable_effective_block_sizes() =
      Tell(state.effective, exported->name(), state.generation);
  exported->set_connection_count(state.connection_count);
  for (std::string& uri : UrisOf(*exported, engine)) exported->add_uris(std::move(uri));
}

// True if both say the same about why an export cannot be served.
bool SameObstacle(const absl::Status& a, const absl::Status& b) {
  return a.code() == b.code() && InfoOf(a).reason() == InfoOf(b).reason();
}

}  // namespace

ExportManager::ExportManager(const ManagerContext& context, const ImageManager& images,
                             ExportOptions options)
    : context_(context),
      images_(images),
      options_(options),
      records_(context.store, kExports, kExportType),
      retrier_(options.first_retry, options.longest_retry,
               [this](const std::string& name) { return TryAgain(name); }) {}

absl::StatusOr<engine::ExportSpec> ExportManager::EngineSpec(const v1::Export& exported) const {
  ASSIGN_OR_RETURN(const engine::ImageSpec image,
                   images_.ActiveSpec(exported.source(), "export.source"));
  engine::ExportSpec spec = SpecOf(exported, image);
  if (spec.max_connections == 0 || spec.max_connections > options_.max_connections) {
    spec.max_connections = options_.max_connections;
  }
  return spec;
}

absl::StatusOr<engine::ExportState> ExportManager::Serve(const v1::Export& exported) {
  ASSIGN_OR_RETURN(engine::ExportSpec spec, EngineSpec(exported));
  auto state = Await<absl::StatusOr<engine::ExportState>>(
      [&](auto done) { context_.engine.CreateExport(std::move(spec), std::move(done)); });
  if (!state.ok()) return FromEngine(state.status(), About(exported));
  return state;
}

absl::StatusOr<engine::ExportState> ExportManager::Change(const v1::Export& exported) {
  ASSIGN_OR_RETURN(engine::ExportSpec spec, EngineSpec(exported));
  auto state = Await<absl::StatusOr<engine::ExportState>>(
      [&](auto done) { context_.engine.UpdateExport(std::move(spec), std::move(done)); });
  if (!state.ok()) return FromEngine(state.status(), About(exported));
  return state;
}

// OK if it is not served.
absl::Status ExportManager::StopServing(const std::string& name, engine::DeleteMode mode) {
  const absl::Status status = Await<absl::Status>(
      [&](auto done) { context_.engine.DeleteExport(name, mode, std::move(done)); });
  return absl::IsNotFound(status) ? absl::OkStatus() : status;
}

void ExportManager::Forget(const StoredExport& stored) {
  const std::string& name = stored.resource.name();
  const absl::Status status = records_.Erase(stored);
  if (!status.ok()) {
    context_.logger.Log(
        LogLevel::kError, "exports",
        absl::StrCat("The unfinished creation of ", name,
                     " could not be undone and will be at the next start: ", status.ToString()));
  }
  context_.index.Remove(name);
  ClearFailure(name);
}

std::optional<absl::Status> ExportManager::FailureOf(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  const auto found = failures_.find(name);
  if (found == failures_.end()) return std::nullopt;
  return found->second;
}

void ExportManager::SetFailure(const std::string& name, const absl::Status& failure) {
  {
    const std::lock_guard lock(mutex_);
    failures_[name] = failure;
  }
  retrier_.Add(name);
}

void ExportManager::ClearFailure(const std::string& name) {
  retrier_.Remove(name);
  const std::lock_guard lock(mutex_);
  failures_.erase(name);
}

// What was asked for, with everything that may be left out; refused if its name is taken.
absl::StatusOr<v1::Export> ExportManager::NewExport(const v1::CreateExportRequest& request) const {
  v1::Export exported = request.export_();
  exported.set_name(MakeName(kExports, request.export_id()));
  if (exported.nbd_name().empty()) exported.set_nbd_name(request.export_id());
  if (!exported.has_enabled()) exported.set_enabled(true);
  ASSIGN_OR_RETURN(const std::optional<StoredExport> old, records_.Find(exported.name()));
  if (old.has_value()) {
    return ExistsAlready(exported, old->resource, kExportType, exported.name());
  }
  RETURN_IF_ERROR(CheckIsBuilt(exported));
  RETURN_IF_ERROR(images_.ActiveSpec(exported.source(), "export.source").status());
  exported.set_uid(NewUid());
  exported.set_generation(1);
  *exported.mutable_create_time() = Now();
  *exported.mutable_update_time() = exported.create_time();
  exported.set_state(v1::Export::STATE_CREATING);
  return exported;
}

absl::Status ExportManager::TakeNames(const v1::Export& exported) {
  const std::optional<std::string> other =
      context_.index.Add(exported.name(), exported.nbd_name(), exported.source());
  if (!other.has_value()) return absl::OkStatus();
  const std::string message = absl::StrCat("The name is in use by ", *other, ".");
  return Error(reason::kResourceExists, message)
      .Field("export.nbd_name", message)
      .Resource(kExportType, *other);
}

absl::StatusOr<v1::Export> ExportManager::Create(const v1::CreateExportRequest& request) {
  const ResourceLocks::Guard lock =
      context_.locks.Lock({MakeName(kExports, request.export_id()), request.export_().source()});
  ASSIGN_OR_RETURN(v1::Export exported, NewExport(request));
  const std::string name = exported.name();
  RETURN_IF_ERROR(TakeNames(exported));
  absl::StatusOr<StoredExport> creating = records_.Add(std::move(exported));
  if (!creating.ok()) {
    context_.index.Remove(name);
    return creating.status();
  }
  const absl::StatusOr<engine::ExportState> state = Serve(creating->resource);
  if (!state.ok()) {
    Forget(*creating);
    return state.status();
  }
  v1::Export active = creating->resource;
  active.set_state(v1::Export::STATE_ACTIVE);
  const absl::StatusOr<StoredExport> written = records_.Save(active, creating->revision);
  if (!written.ok()) {
    RETURN_IF_ERROR(StopServing(name, engine::DeleteMode::kHard));
    Forget(*creating);
    return written.status();
  }
  Show(*state, context_.engine.info(), &active);
  return active;
}

// `exported` as it is now.
absl::StatusOr<v1::Export> ExportManager::Observe(v1::Export exported) const {
  if (exported.state() != v1::Export::STATE_ACTIVE) return exported;
  std::optional<absl::Status> failure = FailureOf(exported.name());
  if (!failure.has_value()) {
    const auto state = Await<absl::StatusOr<engine::ExportState>>(
        [&](auto done) { context_.engine.GetExport(exported.name(), std::move(done)); });
    if (state.ok()) {
      Show(*state, context_.engine.info(), &exported);
      return exported;
    }
    // It may have been deleted since its row was read.
    RETURN_IF_ERROR(CheckExists(exported.name()));
    failure = FromEngine(state.status(), About(exported));
  }
  exported.set_state(v1::Export::STATE_FAILED);
  *exported.mutable_state_error() = ToRpcStatus(*failure);
  return exported;
}

absl::StatusOr<v1::Export> ExportManager::Get(const std::string& name) const {
  ASSIGN_OR_RETURN(const StoredExport stored, records_.Get(name));
  return Observe(stored.resource);
}

absl::StatusOr<v1::ListExportsResponse> ExportManager::List(
    const v1::ListExportsRequest& request) const {
  ASSIGN_OR_RETURN(Listed<v1::Export> listed,
                   records_.List(context_.tokens, request.page_size(), request.page_token()));
  v1::ListExportsResponse response;
  for (v1::Export& exported : listed.resources) {
    absl::StatusOr<v1::Export> observed = Observe(std::move(exported));
    if (absl::IsNotFound(observed.status())) continue;  // deleted meanwhile
    if (!observed.ok()) return observed.status();
    *response.add_exports() = *std::move(observed);
  }
  response.set_next_page_token(std::move(listed.next_page_token));
  response.set_revision(listed.revision);
  return response;
}

absl::StatusOr<v1::Export> ExportManager::Update(const v1::UpdateExportRequest& request) {
  const std::string& name = request.export_().name();
  // The source cannot change, so that it is known before the locks are held.
  ASSIGN_OR_RETURN(const StoredExport seen, records_.Get(name));
  const ResourceLocks::Guard lock = context_.locks.Lock({name, seen.resource.source()});
  ASSIGN_OR_RETURN(const StoredExport before, records_.Get(name));
  if (before.resource.state() != v1::Export::STATE_ACTIVE) {
    return Error(reason::kOperationInProgress, absl::StrCat(name, " is being deleted."));
  }
  v1::Export after = before.resource;
  ASSIGN_OR_RETURN(const bool changed, ApplyUpdate(request, &after));
  if (!after.has_enabled()) after.set_enabled(true);
  RETURN_IF_ERROR(CheckIsBuilt(after));
  if (changed) {
    after.set_generation(before.resource.generation() + 1);
    *after.mutable_update_time() = Now();
  } else if (!FailureOf(name).has_value()) {
    return Observe(before.resource);
  }
  return Apply(before, after);
}

// Brings what is served from `before` to `after`. What cannot be served already, for the same
// reason, does not keep its resource from changing.
absl::StatusOr<v1::Export> ExportManager::Apply(const StoredExport& before,
                                                const v1::Export& after) {
  const std::string& name = after.name();
  ASSIGN_OR_RETURN(const StoredExport written, records_.Save(after, before.revision));
  const std::optional<absl::Status> failure = FailureOf(name);
  const absl::StatusOr<engine::ExportState> state =
      failure.has_value() ? Serve(after) : Change(after);
  if (state.ok()) {
    ClearFailure(name);
    v1::Export shown = after;
    Show(*state, context_.engine.info(), &shown);
    return shown;
  }
  if (failure.has_value() && SameObstacle(*failure, state.status())) return Observe(after);
  RETURN_IF_ERROR(records_.Save(before.resource, written.revision).status());
  return state.status();
}

absl::StatusOr<google::protobuf::Empty> ExportManager::Delete(const std::string& name) {
  ASSIGN_OR_RETURN(const StoredExport seen, records_.Get(name));
  const ResourceLocks::Guard lock = context_.locks.Lock({name, seen.resource.source()});
  ASSIGN_OR_RETURN(const StoredExport before, records_.Get(name));
  v1::Export deleting = before.resource;
  deleting.set_state(v1::Export::STATE_DELETING);
  ASSIGN_OR_RETURN(const StoredExport marked, records_.Save(deleting, before.revision));
  const absl::Status stopped = StopServing(name, engine::DeleteMode::kSafe);
  if (!stopped.ok()) {
    RETURN_IF_ERROR(records_.Save(before.resource, marked.revision).status());
    return FromEngine(stopped, About(deleting));
  }
  RETURN_IF_ERROR(records_.Erase(marked));
  context_.index.Remove(name);
  ClearFailure(name);
  return google::protobuf::Empty();
}

absl::Status ExportManager::CheckExists(const std::string& name) const {
  return records_.Get(name).status();
}

absl::StatusOr<std::string> ExportManager::ServedImage(const std::string& name) const {
  ASSIGN_OR_RETURN(const StoredExport stored, records_.Get(name));
  const std::optional<absl::Status> failure = FailureOf(name);
  if (failure.has_value()) return *failure;
  return stored.resource.source();
}

}  // namespace gabion::service
