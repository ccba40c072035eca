#include "service/domain/connection_view.h"

#include "service/domain/identity.h"

namespace gabion::service {

v1::Connection DescribeConnection(const std::string& export_name,
                                  const engine::ConnectionState& state) {
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

}  // namespace gabion::service
