// The part of ExportManager that runs when the daemon starts, and in the background afterwards.
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "service/domain/export_manager.h"
#include "service/domain/export_view.h"
#include "service/errors.h"

namespace gabion::service {

absl::Status ExportManager::Load() {
  return records_.ForEach([&](const StoredExport& stored) -> absl::Status {
    const v1::Export& row = stored.resource;
    const bool settled = row.observed_generation() == row.generation();
    if (!settled) {
      // What a change that was cut off has attached and let go of may not have been told.
      ASSIGN_OR_RETURN(const auto intent, context_.intents.Find(row.name()));
      if (intent.has_value() && intent->has_update_export()) {
        context_.attachments.Tell(row.name(), AttachedTo(intent->update_export()));
      }
    }
    RETURN_IF_ERROR(TakeNames(row));
    if (settled) context_.attachments.Settle(row.name());
    return absl::OkStatus();
  });
}

absl::Status ExportManager::Recover() {
  RETURN_IF_ERROR(records_.ForEach([&](const StoredExport& stored) { return RecoverOne(stored); }));
  return ClearStrays();
}

// Intents of exports that are no more.
absl::Status ExportManager::ClearStrays() {
  ASSIGN_OR_RETURN(const std::vector<std::string> names, context_.intents.Names("exports/"));
  for (const std::string& name : names) {
    ASSIGN_OR_RETURN(const std::optional<StoredExport> stored, records_.Find(name));
    if (stored.has_value()) continue;
    std::vector<Mutation> steps;
    RETURN_IF_ERROR(context_.intents.Clear(name, context_.requests, &steps));
    if (!steps.empty()) RETURN_IF_ERROR(context_.store.Commit(steps).status());
  }
  return absl::OkStatus();
}

absl::Status ExportManager::SettleChange(const std::string& name) {
  ASSIGN_OR_RETURN(const std::optional<StoredExport> stored, records_.Find(name));
  if (!stored.has_value() || !stored->resource.operation().empty()) return absl::OkStatus();
  const v1::Export& row = stored->resource;
  if (row.observed_generation() == row.generation()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::optional<store::v1::Intent> intent, context_.intents.Find(name));
  return intent.has_value() ? RecoverChange(*stored, *intent) : absl::OkStatus();
}

absl::Status ExportManager::RecoverOne(const StoredExport& stored) {
  const v1::Export& row = stored.resource;
  if (!row.operation().empty()) return absl::OkStatus();  // its clients are gone: the job goes on
  if (row.observed_generation() != row.generation()) {
    ASSIGN_OR_RETURN(const std::optional<store::v1::Intent> intent,
                     context_.intents.Find(row.name()));
    if (intent.has_value()) return RecoverChange(stored, *intent);
  }
  const ExportServing::State state = serving_.Serve(row);
  if (!state.ok()) {
    LogError(absl::StrCat(row.name(), " cannot be served; it is tried again"), state.status());
    reconciler_.AddFailed(row.name());
  }
  return WriteServed(stored, state);
}

// Nobody was told yet how the change ended: it is finished if that is possible, and else taken
// back.
absl::Status ExportManager::RecoverChange(const StoredExport& stored,
                                          const store::v1::Intent& intent) {
  v1::Export row = stored.resource;
  const bool creates = intent.create_export();
  // Taking it back may have begun.
  context_.index.Link(row.name(), row.source());
  context_.attachments.Tell(row.name(), AttachedTo(row));
  // While its taking back could not be written, somebody may have put an image on the source.
  const absl::Status writable = CheckWritable(WrittenBy(row));
  const ExportServing::State state =
      writable.ok() ? serving_.ServeOrChange(row) : ExportServing::State(writable);
  context_.logger.Log(
      LogLevel::kWarning, "exports",
      absl::StrCat("The ", creates ? "creation" : "change", " of ", row.name(),
                   " was cut off and is ",
                   state.ok() ? "finished now." : "undone: " + state.status().ToString()));
  if (state.ok()) {
    SetServed(&row);
    return Settle(intent.request(), row, stored.revision, Tell(row, state)).status();
  }
  if (creates) return TakeBack(intent.request(), stored, nullptr);
  RETURN_IF_ERROR(TakeBack(intent.request(), stored, &intent.update_export()));
  ASSIGN_OR_RETURN(const StoredExport before, records_.Get(row.name()));
  return RecoverOne(before);
}

absl::Status ExportManager::WriteServed(const StoredExport& stored,
                                        const ExportServing::State& state) {
  v1::Export row = stored.resource;
  if (state.ok()) {
    SetServed(&row);
  } else {
    row.set_state(v1::Export::STATE_FAILED);
    *row.mutable_state_error() = ToRpcStatus(state.status());
  }
  const v1::Export& before = stored.resource;
  if (row.state() == before.state() && row.observed_generation() == before.observed_generation() &&
      row.state_error().SerializeAsString() == before.state_error().SerializeAsString()) {
    return absl::OkStatus();
  }
  NoteServed(&row);
  return context_.store.Commit({records_.Saving(row, stored.revision)}).status();
}

Reconciler::Outcome ExportManager::TryAgain(const std::string& name) {
  using Outcome = Reconciler::Outcome;
  const absl::StatusOr<ResourceLocks::Guard> lock = LockAround(name, nullptr, Patience());
  if (!lock.ok()) return Outcome::kRetry;
  const absl::StatusOr<StoredExport> stored = records_.Get(name);
  if (!stored.ok()) return absl::IsNotFound(stored.status()) ? Outcome::kDone : Outcome::kRetry;
  const v1::Export& row = stored->resource;
  if (!row.operation().empty()) return Outcome::kDone;
  // A change whose end could not be written.
  const absl::StatusOr<std::optional<store::v1::Intent>> intent = context_.intents.Find(name);
  if (!intent.ok()) return Outcome::kRetry;
  if (intent->has_value() && row.observed_generation() != row.generation()) {
    return RecoverChange(*stored, **intent).ok() ? Outcome::kDone : Outcome::kRetry;
  }
  if (row.state() != v1::Export::STATE_FAILED) return Outcome::kDone;
  const ExportServing::State state = serving_.ServeOrChange(row);
  const absl::Status written = WriteServed(*stored, state);
  if (!written.ok()) LogError(absl::StrCat("The state of ", name, " was not written"), written);
  if (!state.ok() || !written.ok()) return Outcome::kRetry;
  context_.logger.Log(LogLevel::kInfo, "exports", absl::StrCat(name, " is served again."));
  return Outcome::kDone;
}

}  // namespace gabion::service
