// The part of ExportManager that runs when the daemon starts, and in the background afterwards.
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "service/domain/export_manager.h"

namespace gabion::service {

absl::Status ExportManager::Recover() {
  return records_.ForEach([&](StoredExport stored) { return RecoverOne(std::move(stored)); });
}

absl::Status ExportManager::RecoverOne(StoredExport stored) {
  v1::Export exported = stored.resource;
  const std::string& name = exported.name();
  if (exported.state() == v1::Export::STATE_DELETING) return records_.Erase(stored);
  RETURN_IF_ERROR(TakeNames(exported));
  const absl::StatusOr<engine::ExportState> state = Serve(exported);
  if (exported.state() == v1::Export::STATE_CREATING) {
    // Nobody was told yet how the creation ended.
    context_.logger.Log(
        LogLevel::kWarning, "exports",
        absl::StrCat("The creation of ", name, " was cut off and is ",
                     state.ok() ? "finished now." : "undone: " + state.status().ToString()));
    if (!state.ok()) {
      context_.index.Remove(name);
      return records_.Erase(stored);
    }
    exported.set_state(v1::Export::STATE_ACTIVE);
    return records_.Save(exported, stored.revision).status();
  }
  if (!state.ok()) {
    context_.logger.Log(
        LogLevel::kError, "exports",
        absl::StrCat(name, " cannot be served; it is tried again: ", state.status().ToString()));
    SetFailure(name, state.status());
  }
  return absl::OkStatus();
}

bool ExportManager::TryAgain(const std::string& name) {
  const absl::StatusOr<StoredExport> seen = records_.Get(name);
  if (!seen.ok()) return absl::IsNotFound(seen.status());
  const ResourceLocks::Guard lock = context_.locks.Lock({name, seen->resource.source()});
  const absl::StatusOr<StoredExport> stored = records_.Get(name);
  if (!stored.ok()) return absl::IsNotFound(stored.status());
  if (!FailureOf(name).has_value()) return true;  // it has been served or deleted meanwhile
  const absl::StatusOr<engine::ExportState> state = Serve(stored->resource);
  if (!state.ok()) {
    SetFailure(name, state.status());
    return false;
  }
  context_.logger.Log(LogLevel::kInfo, "exports", absl::StrCat(name, " is served again."));
  const std::lock_guard guard(mutex_);
  failures_.erase(name);
  return true;
}

}  // namespace gabion::service
