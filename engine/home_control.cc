// What the control plane asks of the home shard: pools and the list of exports.
#include <map>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/reason.h"
#include "engine/base/status_macros.h"
#include "engine/call_on.h"
#include "engine/export_use.h"
#include "engine/home.h"
#include "engine/target.h"

namespace gabion::engine {
namespace {

absl::Status NotFound(const std::string& name) {
  return WithReason(absl::NotFoundError(absl::StrCat(name, " does not exist")),
                    {"RESOURCE_NOT_FOUND", {{"resource", name}}});
}

absl::Status Exists(const std::string& name, const std::string& field) {
  return WithReason(absl::AlreadyExistsError(absl::StrCat(name, " is served already")),
                    {"RESOURCE_EXISTS", {{"resource", name}, {"field", field}}});
}

}  // namespace

absl::Status Home::AddPool(std::string name, std::unique_ptr<io::Directory> directory) {
  const auto [place, added] = pools_.try_emplace(std::move(name), std::move(directory));
  if (!added) return absl::AlreadyExistsError(absl::StrCat(place->first, " exists already"));
  return absl::OkStatus();
}

absl::StatusOr<const io::Directory*> Home::PoolOf(const std::string& name) const {
  const auto found = pools_.find(name);
  if (found == pools_.end()) return NotFound(name);
  return found->second.get();
}

// Those of all images that the spec names.
absl::StatusOr<Pools> Home::PoolsOf(const ExportSpec& spec) const {
  Pools pools;
  ASSIGN_OR_RETURN(pools[spec.image.pool], PoolOf(spec.image.pool));
  for (const FilterEntry& entry : spec.filters) {
    const ImageSpec* const image = OtherImageOf(entry.options);
    if (image == nullptr) continue;
    ASSIGN_OR_RETURN(pools[image->pool], PoolOf(image->pool));
  }
  return pools;
}

Task<absl::StatusOr<const io::Directory*>> Home::FindPool(const std::string& name) {
  return Task<absl::StatusOr<const io::Directory*>>(PoolOf(name));
}

Task<absl::StatusOr<PoolInfo>> Home::GetPool(std::string name) {
  CO_ASSIGN_OR_RETURN(const io::Directory* const pool, PoolOf(name));
  absl::StatusOr<io::DirectorySpace> space =
      co_await workers_.Run([pool] { return pool->Space(); });
  if (!space.ok()) co_return Annotate(space.status(), name);
  co_return PoolInfo{.size = space->size,
                     .available = space->available,
                     .punch_holes = space->punch_holes,
                     .direct_io = space->direct_io};
}

absl::Status Home::CheckNames(const ExportSpec& spec) const {
  if (exports_.contains(spec.name)) return Exists(spec.name, "export_id");
  const auto holder = by_wire_name_.find(spec.nbd_name);
  if (holder == by_wire_name_.end()) return absl::OkStatus();
  return WithReason(
      absl::AlreadyExistsError(
          absl::StrCat("the wire name '", spec.nbd_name, "' belongs to ", holder->second)),
      {"RESOURCE_EXISTS", {{"resource", holder->second}, {"field", "export.nbd_name"}}});
}

Task<absl::StatusOr<ExportState>> Home::CreateExport(ExportSpec spec) {
  const KeyedMutex::Lock turn = co_await export_turn_.Acquire(spec.name);
  CO_RETURN_IF_ERROR(CheckNames(spec));
  CO_ASSIGN_OR_RETURN(const Pools pools, PoolsOf(spec));
  Known known;
  known.nbd_name = spec.nbd_name;
  known.image_name = spec.image.name;
  known.pool = spec.image.pool;
  exports_.emplace(spec.name, std::move(known));
  by_wire_name_.emplace(spec.nbd_name, spec.name);
  ShardServer& server = ServerOf(spec.image.name);
  auto call = [&server, &spec, &pools] { return server.CreateExport(spec, pools); };
  absl::StatusOr<ExportState> state = co_await CallOn(shard_, server.shard(), server.tasks(), call);
  if (!state.ok()) {
    by_wire_name_.erase(spec.nbd_name);
    exports_.erase(spec.name);
  }
  co_return state;
}

absl::StatusOr<ShardServer*> Home::ServerOfExport(const std::string& export_name) const {
  const auto found = exports_.find(export_name);
  if (found == exports_.end()) return NotFound(export_name);
  return &ServerOf(found->second.image_name);
}

Task<absl::StatusOr<ExportState>> Home::UpdateExport(ExportSpec spec) {
  const KeyedMutex::Lock turn = co_await export_turn_.Acquire(spec.name);
  CO_ASSIGN_OR_RETURN(ShardServer* const server, ServerOfExport(spec.name));
  const Known& known = exports_.at(spec.name);
  if (known.nbd_name != spec.nbd_name || known.image_name != spec.image.name) {
    co_return WithReason(
        absl::InvalidArgumentError(
            absl::StrCat(spec.name, ": the wire name and the image of an export do not change")),
        {"FIELD_IMMUTABLE",
         {{"field", known.nbd_name != spec.nbd_name ? "export.nbd_name" : "export.source"}}});
  }
  CO_ASSIGN_OR_RETURN(const Pools pools, PoolsOf(spec));
  auto call = [server, &spec, &pools] { return server->UpdateExport(spec, pools); };
  absl::StatusOr<ExportState> state =
      co_await CallOn(shard_, server->shard(), server->tasks(), call);
  co_return state;
}

Task<absl::StatusOr<ExportState>> Home::CheckExport(ExportSpec spec) {
  const KeyedMutex::Lock turn = co_await export_turn_.Acquire(spec.name);
  CO_ASSIGN_OR_RETURN(const Pools pools, PoolsOf(spec));
  ShardServer& server = ServerOf(spec.image.name);
  auto call = [&server, &spec, &pools] { return server.CheckExport(spec, pools); };
  absl::StatusOr<ExportState> state = co_await CallOn(shard_, server.shard(), server.tasks(), call);
  co_return state;
}

Task<absl::Status> Home::DeleteExport(std::string name, DeleteMode mode) {
  const KeyedMutex::Lock turn = co_await export_turn_.Acquire(name);
  CO_ASSIGN_OR_RETURN(ShardServer* const server, ServerOfExport(name));
  // Out of sight first, so that nobody arrives while it closes.
  exports_.at(name).published = false;
  auto call = [server, &name, mode] { return server->DeleteExport(name, mode); };
  const absl::Status deleted = co_await CallOn(shard_, server->shard(), server->tasks(), call);
  if (!deleted.ok()) {
    exports_.at(name).published = true;
    co_return deleted;
  }
  by_wire_name_.erase(exports_.at(name).nbd_name);
  exports_.erase(name);
  co_return absl::OkStatus();
}

Task<absl::StatusOr<ExportState>> Home::GetExport(std::string name) {
  CO_ASSIGN_OR_RETURN(ShardServer* const server, ServerOfExport(name));
  auto call = [server, &name] { return server->GetExport(name); };
  absl::StatusOr<ExportState> state =
      co_await CallOn(shard_, server->shard(), server->tasks(), call);
  co_return state;
}

// One call to each shard that has any of them.
Task<std::vector<absl::StatusOr<ExportState>>> Home::GetExports(std::vector<std::string> names) {
  std::vector<absl::StatusOr<ExportState>> states(names.size());
  std::map<ShardServer*, std::vector<std::size_t>> places;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const absl::StatusOr<ShardServer*> server = ServerOfExport(names[i]);
    if (server.ok()) {
      places[*server].push_back(i);
    } else {
      states[i] = server.status();
    }
  }
  for (const auto& [server, own] : places) {
    std::vector<std::string> asked;
    for (const std::size_t i : own) asked.push_back(std::move(names[i]));
    auto call = [to = server, &asked] { return to->GetExports(std::move(asked)); };
    std::vector<absl::StatusOr<ExportState>> answers =
        co_await CallOn(shard_, server->shard(), server->tasks(), call);
    for (std::size_t k = 0; k < own.size(); ++k) states[own[k]] = std::move(answers[k]);
  }
  co_return states;
}

Task<absl::Status> Home::Ping() {
  for (ShardServer* const server : servers_) {
    auto call = [] { return Task<absl::Status>(absl::OkStatus()); };
    const absl::Status answered = co_await CallOn(shard_, server->shard(), server->tasks(), call);
    CO_RETURN_IF_ERROR(answered);
  }
  co_return absl::OkStatus();
}

Task<absl::StatusOr<std::vector<ConnectionState>>> Home::ListConnections(std::string name) {
  CO_ASSIGN_OR_RETURN(ShardServer* const server, ServerOfExport(name));
  auto call = [server, &name] { return server->ListConnections(name); };
  absl::StatusOr<std::vector<ConnectionState>> connections =
      co_await CallOn(shard_, server->shard(), server->tasks(), call);
  co_return connections;
}

Task<absl::Status> Home::CloseConnection(std::string name, uint64_t id) {
  CO_ASSIGN_OR_RETURN(ShardServer* const server, ServerOfExport(name));
  auto call = [server, &name, id] { return server->CloseConnection(name, id); };
  const absl::Status closed = co_await CallOn(shard_, server->shard(), server->tasks(), call);
  co_return closed;
}

Task<absl::StatusOr<std::vector<FilterStatistics>>> Home::GetFilterStatistics(std::string name) {
  CO_ASSIGN_OR_RETURN(ShardServer* const server, ServerOfExport(name));
  auto call = [server, &name] { return server->GetFilterStatistics(name); };
  absl::StatusOr<std::vector<FilterStatistics>> statistics =
      co_await CallOn(shard_, server->shard(), server->tasks(), call);
  co_return statistics;
}

Task<absl::StatusOr<std::unique_ptr<Target>>> Home::OpenTarget(std::string export_name) {
  CO_ASSIGN_OR_RETURN(ShardServer* const server, ServerOfExport(export_name));
  auto call = [server, &export_name] {
    return Task<absl::StatusOr<std::unique_ptr<Target>>>(MakeExportTarget(*server, export_name));
  };
  absl::StatusOr<std::unique_ptr<Target>> target =
      co_await CallOn(shard_, server->shard(), server->tasks(), call);
  co_return target;
}

}  // namespace gabion::engine
