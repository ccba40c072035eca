#include "service/domain/export_serving.h"

#include <utility>

#include "engine/base/status_macros.h"
#include "service/domain/await.h"
#include "service/domain/engine_errors.h"
#include "service/domain/export_spec.h"
#include "service/domain/export_view.h"

namespace gabion::service {

void SetServed(v1::Export* row) {
  row->set_state(v1::Export::STATE_ACTIVE);
  row->clear_state_error();
  row->set_observed_generation(row->generation());
  NoteServed(row);
}

absl::StatusOr<std::vector<engine::FilterEntry>> ExportServing::StackOf(
    const v1::Export& exported, const FilterChange& change,
    const std::set<std::string>* needed) const {
  StackSource source;
  source.allow_faults = options_.allow_fault_filters;
  source.fields = change.fields;
  source.find = [&](const std::string& name,
                    const std::string& field) -> absl::StatusOr<v1::Filter> {
    if (change.instead != nullptr && change.instead->name() == name) return *change.instead;
    ASSIGN_OR_RETURN(Stored<v1::Filter> stored, filters_.Get(name, field));
    return std::move(stored.resource);
  };
  source.find_image = [&](const std::string& name, const std::string& field) {
    const bool is_new = needed != nullptr && !needed->contains(name);
    return is_new ? images_.ActiveSpec(name, field) : images_.ServedSpec(name, field);
  };
  return ResolveStack(exported, source);
}

absl::Status ExportServing::CheckStack(const v1::Export& exported, const FilterChange& change,
                                       const std::set<std::string>& needed) const {
  return StackOf(exported, change, &needed).status();
}

absl::StatusOr<engine::ExportSpec> ExportServing::SpecFor(const v1::Export& exported,
                                                          const FilterChange& change) const {
  ASSIGN_OR_RETURN(const engine::ImageSpec image,
                   images_.ServedSpec(exported.source(), "export.source"));
  engine::ExportSpec spec = SpecOf(exported, image);
  if (spec.max_connections == 0 || spec.max_connections > options_.max_connections) {
    spec.max_connections = options_.max_connections;
  }
  ASSIGN_OR_RETURN(spec.filters, StackOf(exported, change, nullptr));
  spec.quiesce_timeout = change.quiesce_timeout;
  return spec;
}

ExportServing::State ExportServing::Serve(const v1::Export& exported,
                                          const FilterChange& change) const {
  ASSIGN_OR_RETURN(engine::ExportSpec spec, SpecFor(exported, change));
  State state =
      Await<State>([&](auto done) { engine_.CreateExport(std::move(spec), std::move(done)); });
  if (!state.ok()) return FromEngine(state.status(), About(exported, change.fields));
  return state;
}

ExportServing::State ExportServing::Change(const v1::Export& exported,
                                           const FilterChange& change) const {
  ASSIGN_OR_RETURN(engine::ExportSpec spec, SpecFor(exported, change));
  State state =
      Await<State>([&](auto done) { engine_.UpdateExport(std::move(spec), std::move(done)); });
  if (!state.ok()) return FromEngine(state.status(), About(exported, change.fields));
  return state;
}

ExportServing::State ExportServing::ServeOrChange(const v1::Export& exported,
                                                  const FilterChange& change) const {
  return Look({exported.name()}).front().ok() ? Change(exported, change) : Serve(exported, change);
}

ExportServing::State ExportServing::Check(const v1::Export& exported,
                                          const FilterChange& change) const {
  ASSIGN_OR_RETURN(engine::ExportSpec spec, SpecFor(exported, change));
  State state =
      Await<State>([&](auto done) { engine_.CheckExport(std::move(spec), std::move(done)); });
  if (!state.ok()) return FromEngine(state.status(), About(exported, change.fields));
  return state;
}

std::vector<ExportServing::State> ExportServing::Look(const std::vector<std::string>& names) const {
  if (names.empty()) return {};
  std::vector<State> states =
      Await<std::vector<State>>([&](auto done) { engine_.GetExports(names, std::move(done)); });
  states.resize(names.size(), absl::UnavailableError("The data plane has stopped."));
  return states;
}

absl::Status ExportServing::Stop(const v1::Export& exported, engine::DeleteMode mode) const {
  const absl::Status status = Await<absl::Status>(
      [&](auto done) { engine_.DeleteExport(exported.name(), mode, std::move(done)); });
  if (status.ok() || absl::IsNotFound(status)) return absl::OkStatus();
  return FromEngine(status, About(exported));
}

}  // namespace gabion::service
