#include "service/domain/connection_manager.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "engine/base/status_macros.h"
#include "service/domain/await.h"
#include "service/domain/connection_view.h"
#include "service/domain/engine_errors.h"
#include "service/domain/identity.h"
#include "service/domain/list_query.h"
#include "service/domain/memory_page.h"
#include "service/errors.h"
#include "service/names.h"

namespace gabion::service {
namespace {

constexpr std::string_view kConnectionType = "gabion/Connection";

// By exports, and oldest first.
bool IsBefore(const v1::Connection& a, const v1::Connection& b) {
  const std::optional<ConnectionName> left = ParseConnectionName(a.name());
  const std::optional<ConnectionName> right = ParseConnectionName(b.name());
  return std::pair(left->export_name, left->id) < std::pair(right->export_name, right->id);
}

}  // namespace

absl::StatusOr<std::vector<engine::ConnectionState>> ConnectionManager::All(
    const std::string& export_name) const {
  RETURN_IF_ERROR(exports_.CheckExists(export_name));
  auto all = Await<absl::StatusOr<std::vector<engine::ConnectionState>>>(
      [&](auto done) { engine_.ListConnections(export_name, std::move(done)); });
  // An export that is not served has none.
  if (absl::IsNotFound(all.status())) return std::vector<engine::ConnectionState>();
  if (!all.ok()) {
    EngineCall call;
    call.export_name = export_name;
    return FromEngine(all.status(), call);
  }
  std::sort(all->begin(), all->end(), [](const auto& a, const auto& b) { return a.id < b.id; });
  return all;
}

absl::StatusOr<v1::Connection> ConnectionManager::Get(const std::string& name) const {
  const std::optional<ConnectionName> parsed = ParseConnectionName(name);
  if (!parsed.has_value()) return NotFound(kConnectionType, name);
  ASSIGN_OR_RETURN(const std::vector<engine::ConnectionState> all, All(parsed->export_name));
  for (const engine::ConnectionState& state : all) {
    if (state.id == parsed->id) return DescribeConnection(parsed->export_name, state);
  }
  return NotFound(kConnectionType, name);
}

absl::StatusOr<v1::ListConnectionsResponse> ConnectionManager::List(
    const v1::ListConnectionsRequest& request) const {
  ASSIGN_OR_RETURN(const ListQuery query,
                   ListQuery::Parse(request, v1::Connection::descriptor(), tokens_));
  v1::ListConnectionsResponse response;
  ASSIGN_OR_RETURN(const uint64_t revision, store_.Revision());
  response.set_revision(revision);
  const bool of_all = IdOf(request.parent()) == "-";
  std::vector<std::string> exports = {request.parent()};
  if (of_all) exports = exports_.WithConnections();
  std::vector<v1::Connection> connections;
  for (const std::string& export_name : exports) {
    const auto states = All(export_name);
    if (of_all && absl::IsNotFound(states.status())) continue;  // deleted meanwhile
    if (!states.ok()) return states.status();
    for (const auto& state : *states) connections.push_back(DescribeConnection(export_name, state));
  }
  MemoryPage<v1::Connection> page = PageOf(std::move(connections), query, IsBefore);
  for (v1::Connection& connection : page.resources) {
    *response.add_connections() = std::move(connection);
  }
  response.set_next_page_token(std::move(page.next_page_token));
  return response;
}

absl::StatusOr<v1::CloseConnectionResponse> ConnectionManager::Close(
    const v1::CloseConnectionRequest& request, const Call& call) {
  const std::string& name = request.name();
  const std::optional<ConnectionName> parsed = ParseConnectionName(name);
  if (!parsed.has_value()) return NotFound(kConnectionType, name);
  RETURN_IF_ERROR(Get(name).status());
  const v1::CloseConnectionResponse response;
  if (call.validate_only) return response;
  const absl::Status closed = Await<absl::Status>([&](auto done) {
    engine_.CloseConnection(parsed->export_name, parsed->id, std::move(done));
  });
  if (absl::IsNotFound(closed)) return NotFound(kConnectionType, name);
  EngineCall about;
  about.export_name = parsed->export_name;
  RETURN_IF_ERROR(FromEngine(closed, about));
  // A connection is closed once and for all, so that it may be written afterwards.
  std::vector<Mutation> steps;
  RequestLog::BeginAnswered(call, response, &steps);
  if (!steps.empty()) RETURN_IF_ERROR(store_.Commit(steps).status());
  return response;
}

}  // namespace gabion::service
