// Exports in the engine: from a row to what is served.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "gabion/v1/export.pb.h"
#include "service/domain/image_manager.h"

namespace gabion::service {

// In the row of an export that is served as it says.
void SetServed(v1::Export* row);

// Errors are in the words of the API. Owned by the export manager; any thread, which blocks.
class ExportServing {
 public:
  using State = absl::StatusOr<engine::ExportState>;

  // Both outlive this. `max_connections`: to one export, whatever its own limit is.
  ExportServing(engine::Engine& engine, const ImageManager& images, uint32_t max_connections)
      : engine_(engine), images_(images), max_connections_(max_connections) {}

  // Begins to serve what is not served.
  State Serve(const v1::Export& exported) const;
  // Brings what is served to `exported`.
  State Change(const v1::Export& exported) const;
  // Whichever of the two it needs.
  State ServeOrChange(const v1::Export& exported) const;
  // What Serve() or Change() would answer.
  State Check(const v1::Export& exported) const;
  // What is served now; the engine's error if it is not. In the order of `names`.
  std::vector<State> Look(const std::vector<std::string>& names) const;
  // OK if it is not served.
  absl::Status Stop(const v1::Export& exported, engine::DeleteMode mode) const;

  engine::EngineInfo info() const { return engine_.info(); }

 private:
  absl::StatusOr<engine::ExportSpec> SpecFor(const v1::Export& exported) const;

  engine::Engine& engine_;
  const ImageManager& images_;
  const uint32_t max_connections_;
};

}  // namespace gabion::service
