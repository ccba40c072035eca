#include "service/domain/connection_manager.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "service/domain/await.h"
#include "service/domain/engine_errors.h"
#include "service/domain/identity.h"
#include "service/errors.h"

namespace gabion::service {
namespace {

constexpr std::string_view kConnectionType = "gabion/Connection";

v1::Connection Describe(const std::string& export_name, const engine::ConnectionState& state) {
  v1::Connection connection;
  connection.set_name(FormatConnectionName({export_name, state.id}));
  connection.set_peer_address(state.peer);
  connection.mutable_connect_time()->set_seconds(state.connect_time_us / 1'000'000);
  connection.mutable_connect_time()->set_nanos(
      static_cast<int32_t>(state.connect_time_us % 1'000'000 * 1'000));
  connection.set_requested_block_sizes(state.requested_block_sizes);
  connection.set_structured_replies(state.structured_replies);
  connection.set_spec_generation(state.spec_generation);
  connection.set_unaligned_requests(state.unaligned_requests);
  connection.set_rejected_requests(state.rejected_requests);
  connection.set_negotiated_minimum_bytes(state.minimum_bytes);
  connection.set_negotiated_preferred_bytes(state.preferred_bytes);
  connection.set_negotiated_maximum_payload_bytes(state.maximum_payload_bytes);
  return connection;
}

uint64_t ParseId(const std::string& digits) {
  uint64_t id = 0;
  std::from_chars(digits.data(), digits.data() + digits.size(), id);
  return id;
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
    if (state.id == parsed->id) return Describe(parsed->export_name, state);
  }
  return NotFound(kConnectionType, name);
}

absl::StatusOr<v1::ListConnectionsResponse> ConnectionManager::List(
    const v1::ListConnectionsRequest& request) const {
  const std::string query = absl::StrCat("connections of ", request.parent());
  ASSIGN_OR_RETURN(const std::string after, tokens_.Open(query, request.page_token()));
  ASSIGN_OR_RETURN(const std::vector<engine::ConnectionState> all, All(request.parent()));
  const uint64_t after_id = ParseId(after);  // ids begin at 1
  const int page_size = PageSize(request.page_size());
  v1::ListConnectionsResponse response;
  uint64_t last = 0;
  for (const engine::ConnectionState& state : all) {
    if (state.id <= after_id) continue;
    if (response.connections_size() == page_size) {
      response.set_next_page_token(tokens_.Seal(query, absl::StrCat(last)));
      break;
    }
    *response.add_connections() = Describe(request.parent(), state);
    last = state.id;
  }
  return response;
}

absl::StatusOr<v1::CloseConnectionResponse> ConnectionManager::Close(const std::string& name) {
  const std::optional<ConnectionName> parsed = ParseConnectionName(name);
  if (!parsed.has_value()) return NotFound(kConnectionType, name);
  RETURN_IF_ERROR(exports_.CheckExists(parsed->export_name));
  const absl::Status closed = Await<absl::Status>([&](auto done) {
    engine_.CloseConnection(parsed->export_name, parsed->id, std::move(done));
  });
  if (absl::IsNotFound(closed)) return NotFound(kConnectionType, name);
  EngineCall call;
  call.export_name = parsed->export_name;
  RETURN_IF_ERROR(FromEngine(closed, call));
  return v1::CloseConnectionResponse();
}

}  // namespace gabion::service
