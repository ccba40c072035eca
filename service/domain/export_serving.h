// Exports in the engine: from a row to what is served.
#pragma once

#include <chrono>
#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "gabion/v1/export.pb.h"
#include "gabion/v1/filter.pb.h"
#include "service/domain/filter_attachments.h"
#include "service/domain/filter_stack.h"
#include "service/domain/image_manager.h"
#include "service/domain/records.h"
#include "service/store/metadata_store.h"

namespace gabion::service {

// In the row of an export that is served as it says.
void SetServed(v1::Export* row);

struct ServingOptions {
  uint32_t max_connections = 0;  // to one export, whatever its own limit is
  bool allow_fault_filters = false;
};

// How a change is asked for, as far as filters are concerned. Plain data.
struct FilterChange {
  // How long requests may be held back until those in flight are done.
  std::chrono::milliseconds quiesce_timeout{5000};
  EntryFields fields;  // where the request says what the entries are
  // Counts instead of the row of that name; null: all are as their rows say. Outlives the call.
  const v1::Filter* instead = nullptr;
};

// The quiesce_timeout of `request` as what it is: the default where it is left out.
template <typename Request>
FilterChange ChangeAskedBy(const Request& request) {
  FilterChange change;
  if (request.has_quiesce_timeout()) {
    change.quiesce_timeout =
        std::chrono::seconds(request.quiesce_timeout().seconds()) +
        std::chrono::milliseconds(request.quiesce_timeout().nanos() / 1'000'000);
  }
  return change;
}

// Errors are in the words of the API. Owned by the export manager; any thread, which blocks.
class ExportServing {
 public:
  using State = absl::StatusOr<engine::ExportState>;

  // All of them outlive this.
  ExportServing(engine::Engine& engine, MetadataStore& store, const ImageManager& images,
                ServingOptions options)
      : engine_(engine),
        images_(images),
        filters_(store, kFilters, kFilterType),
        options_(options) {}

  // Begins to serve what is not served.
  State Serve(const v1::Export& exported, const FilterChange& change = {}) const;
  // Brings what is served to `exported`.
  State Change(const v1::Export& exported, const FilterChange& change = {}) const;
  // Whichever of the two it needs.
  State ServeOrChange(const v1::Export& exported, const FilterChange& change = {}) const;
  // What Serve() or Change() would answer.
  State Check(const v1::Export& exported, const FilterChange& change = {}) const;
  // What can be said against its filter_stack without the engine. IMAGE_DELETED for an image that
  // is deleted, unless the export has it already, see `needed`.
  absl::Status CheckStack(const v1::Export& exported, const FilterChange& change,
                          const std::set<std::string>& needed) const;
  // What is served now; the engine's error if it is not. In the order of `names`.
  std::vector<State> Look(const std::vector<std::string>& names) const;
  // OK if it is not served.
  absl::Status Stop(const v1::Export& exported, engine::DeleteMode mode) const;

  engine::EngineInfo info() const { return engine_.info(); }

 private:
  absl::StatusOr<engine::ExportSpec> SpecFor(const v1::Export& exported,
                                             const FilterChange& change) const;
  // `needed`: only these images may be deleted ones; null: any.
  absl::StatusOr<std::vector<engine::FilterEntry>> StackOf(
      const v1::Export& exported, const FilterChange& change,
      const std::set<std::string>* needed) const;

  engine::Engine& engine_;
  const ImageManager& images_;
  const Records<v1::Filter> filters_;
  const ServingOptions options_;
};

}  // namespace gabion::service
