// Exports: what is wanted, in the store; what is served, in the engine.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "gabion/v1/export.pb.h"
#include "google/protobuf/empty.pb.h"
#include "service/domain/image_manager.h"
#include "service/domain/records.h"
#include "service/domain/retrier.h"

namespace gabion::service {

inline constexpr std::string_view kExports = "exports";
inline constexpr std::string_view kExportType = "gabion/Export";

struct ExportOptions {
  // How long an export that cannot be served waits until it is tried again; doubles each time.
  std::chrono::milliseconds first_retry{1'000};
  std::chrono::milliseconds longest_retry{60'000};
  uint32_t max_connections = 256;  // to one export, whatever its own limit is
};

// As ImageManager: row, effect, row. An export that exists but cannot be served (its image is
// missing, or another process has it) is STATE_FAILED and is tried again in the background. Owned
// by the domain; any thread of the executor, which blocks.
class ExportManager {
 public:
  // `images` outlives this.
  ExportManager(const ManagerContext& context, const ImageManager& images, ExportOptions options);

  absl::StatusOr<v1::Export> Create(const v1::CreateExportRequest& request);
  absl::StatusOr<v1::Export> Get(const std::string& name) const;
  absl::StatusOr<v1::ListExportsResponse> List(const v1::ListExportsRequest& request) const;
  absl::StatusOr<v1::Export> Update(const v1::UpdateExportRequest& request);
  absl::StatusOr<google::protobuf::Empty> Delete(const std::string& name);

  // RESOURCE_NOT_FOUND unless there is such an export.
  absl::Status CheckExists(const std::string& name) const;
  // The image of an export that is served; otherwise why it is not.
  absl::StatusOr<std::string> ServedImage(const std::string& name) const;

  // Serves everything again, and finishes or undoes what the last run left unfinished. Call once,
  // before any other call, when the images are recovered.
  absl::Status Recover();
  // Ends the background work. Call before the engine stops.
  void Stop() { retrier_.Stop(); }

 private:
  using StoredExport = Stored<v1::Export>;

  absl::StatusOr<v1::Export> NewExport(const v1::CreateExportRequest& request) const;
  absl::Status TakeNames(const v1::Export& exported);
  absl::StatusOr<v1::Export> Apply(const StoredExport& before, const v1::Export& after);
  absl::StatusOr<v1::Export> Observe(v1::Export exported) const;

  absl::StatusOr<engine::ExportSpec> EngineSpec(const v1::Export& exported) const;
  // Creates or updates the export in the engine.
  absl::StatusOr<engine::ExportState> Serve(const v1::Export& exported);
  absl::StatusOr<engine::ExportState> Change(const v1::Export& exported);
  absl::Status StopServing(const std::string& name, engine::DeleteMode mode);
  // Removes the row and what memory holds of it. Errors go to the log: the next start tries again.
  void Forget(const StoredExport& stored);

  absl::Status RecoverOne(StoredExport stored);
  bool TryAgain(const std::string& name);

  std::optional<absl::Status> FailureOf(const std::string& name) const;
  void SetFailure(const std::string& name, const absl::Status& failure);
  void ClearFailure(const std::string& name);

  const ManagerContext context_;
  const ImageManager& images_;
  const ExportOptions options_;
  Records<v1::Export> records_;
  mutable std::mutex mutex_;
  std::map<std::string, absl::Status> failures_;  // of exports that should be served and are not
  Retrier retrier_;                               // last: it calls the others
};

}  // namespace gabion::service
