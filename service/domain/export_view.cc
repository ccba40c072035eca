#include "service/domain/export_view.h"

#include <string>
#include <utility>

#include "service/domain/export_spec.h"
#include "service/domain/identity.h"
#include "service/domain/image_view.h"
#include "service/errors.h"
#include "service/etag.h"

namespace gabion::service {
namespace {

bool IsServed(const v1::Export& exported) {
  return exported.state() == v1::Export::STATE_ACTIVE ||
         exported.state() == v1::Export::STATE_HIDDEN;
}

// `stored`: what the row says of its own conditions.
void TellConditions(const engine::ExportState* state, const Conditions& stored,
                    v1::Export* exported, ConditionLog& log) {
  const auto tell = [&](const ConditionLog::Fact& fact) {
    log.Tell(exported->uid(), exported->generation(), fact, exported->mutable_conditions());
  };
  const bool ready = exported->state() == v1::Export::STATE_ACTIVE;
  const std::string name = v1::Export::State_Name(exported->state());
  ConditionLog::Fact served{.type = kReady,
                            .satisfied = ready,
                            .reason = name,
                            .message = exported->state_error().message()};
  served.not_before = TransitionOf(kReady, true, stored).value_or(exported->create_time());
  served.since = ready ? std::nullopt : TransitionOf(kReady, false, stored);
  std::string reason;
  if (exported->has_state_error()) {
    reason = InfoOf(FromRpcStatus(exported->state_error())).reason();
    served.reason = reason;
  } else if (exported->state() == v1::Export::STATE_HIDDEN) {
    served.message = "The export is not enabled: it takes no new clients.";
  }
  tell(served);
  ConditionLog::Fact sizes{.type = "BlockSizesPropagated",
                           .satisfied = state == nullptr || state->sizes_propagated,
                           .reason = "OldConnections",
                           .message =
                               "Clients are connected that were told other block sizes; "
                               "closing them ends that."};
  sizes.not_before = exported->create_time();
  tell(sizes);
  ConditionLog::Fact read_only{.type = "ReadOnlyPropagated",
                               .satisfied = state == nullptr || state->read_only_propagated,
                               .reason = "OldConnections",
                               .message =
                                   "Clients are connected that were told another "
                                   "read_only; closing them ends that."};
  read_only.not_before = exported->create_time();
  tell(read_only);
}

}  // namespace

EngineCall About(const v1::Export& exported, const EntryFields& fields) {
  EngineCall call;
  call.image = exported.source();
  call.export_name = exported.name();
  for (int i = 0; i < exported.filter_stack_size(); ++i) {
    call.filter_fields.push_back(FieldOfEntry(exported, i, fields));
  }
  return call;
}

void NoteServed(v1::Export* row) {
  const bool ready = row->state() == v1::Export::STATE_ACTIVE && row->enabled();
  // Until it is noted, it has been Ready since it was created.
  if (ready && row->conditions().empty()) return;
  NoteTransition(kReady, ready, Now(), row->mutable_conditions());
}

v1::Export TellExport(v1::Export row, const absl::StatusOr<engine::ExportState>& state,
                      const engine::EngineInfo& engine, const ImageChains& chains,
                      ConditionLog& conditions) {
  v1::Export exported = std::move(row);
  const Conditions stored = std::exchange(*exported.mutable_conditions(), {});
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
  for (std::string& image : chains.ChainOf(exported.source())) {
    exported.add_effective_chain(std::move(image));
  }
  exported.set_reconciling(exported.observed_generation() != exported.generation() ||
                           !IsServed(exported));
  TellConditions(state.ok() ? &*state : nullptr, stored, &exported, conditions);
  exported.set_etag(EtagOf(exported));
  return exported;
}

}  // namespace gabion::service
