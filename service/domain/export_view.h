// Exports as the API tells them.
#pragma once

#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "gabion/v1/export.pb.h"
#include "service/domain/condition_log.h"
#include "service/domain/engine_errors.h"
#include "service/domain/filter_stack.h"
#include "service/domain/image_chains.h"

namespace gabion::service {

// What errors of the engine about `exported` are about. `fields`: where the request says what the
// entries of its filter_stack are.
EngineCall About(const v1::Export& exported, const EntryFields& fields = {});

// In a row that is about to be written: since when it is Ready, or is not.
void NoteServed(v1::Export* row);

// `row` with what is observed: `state` is what the engine says of it, or that it does not serve it.
v1::Export TellExport(v1::Export row, const absl::StatusOr<engine::ExportState>& state,
                      const engine::EngineInfo& engine, const ImageChains& chains,
                      ConditionLog& conditions);

}  // namespace gabion::service
