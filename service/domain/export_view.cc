#include "service/domain/export_view.h"

#include <string>
#include <utility>

#include "service/domain/export_spec.h"
#include "service/errors.h"
#include "service/etag.h"

namespace gabion::service {
namespace {

bool IsServed(const v1::Export& exported) {
  return exported.state() == v1::Export::STATE_ACTIVE ||
         exported.state() == v1::Export::STATE_HIDDEN;
}

void TellConditions(const engine::ExportState* state, v1::Export* exported, ConditionLog& log) {
  const auto tell = [&](std::string_view type, bool satisfied, std::string_view reason,
                        std::string_view message) {
    log.Tell(exported->uid(), exported->generation(), type, satisfied, reason, message,
             exported->create_time(), exported->mutable_conditions());
  };
  std::string reason = v1::Export::State_Name(exported->state());
  if (exported->has_state_error()) reason = InfoOf(FromRpcStatus(exported->state_error())).reason();
  tell("Ready", IsServed(*exported), reason, exported->state_error().message());
  tell("BlockSizesPropagated", state == nullptr || state->sizes_propagated, "OldConnections",
       "Clients are connected that were told other block sizes; closing them ends that.");
  tell("ReadOnlyPropagated", state == nullptr || state->read_only_propagated, "OldConnections",
       "Clients are connected that were told another read_only; closing them ends that.");
}

}  // namespace

EngineCall About(const v1::Export& exported) {
  EngineCall call;
  call.image = exported.source();
  call.export_name = exported.name();
  return call;
}

v1::Export TellExport(v1::Export row, const absl::StatusOr<engine::ExportState>& state,
                      const engine::EngineInfo& engine, ConditionLog& conditions) {
  v1::Export exported = std::move(row);
  if (exported.state() == v1::Export::STATE_ACTIVE) {
    if (!state.ok()) {
      exported.set_state(v1::Export::STATE_FAILED);
      *exported.mutable_state_error() = ToRpcStatus(FromEngine(state.status(), About(exported)));
    } else if (!exported.enabled()) {
      exported.set_state(v1::Export::STATE_HIDDEN);
    }
  }
  if (state.ok()) {
    *exported.mutable_effective_block_sizes() =
        Tell(state->effective, exported.name(), state->generation);
    exported.set_connection_count(state->connection_count);
  }
  if (IsServed(exported)) {
    for (std::string& uri : UrisOf(exported, engine)) exported.add_uris(std::move(uri));
  }
  exported.set_reconciling(exported.observed_generation() != exported.generation() ||
                           !IsServed(exported));
  TellConditions(state.ok() ? &*state : nullptr, &exported, conditions);
  exported.set_etag(EtagOf(exported));
  return exported;
}

}  // namespace gabion::service
