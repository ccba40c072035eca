// A connection of the engine as the API tells it.
#pragma once

#include <string>
#include <string_view>

#include "engine/engine.h"
#include "gabion/v1/export.pb.h"

namespace gabion::service {

inline constexpr std::string_view kConnections = "connections";

// `export_name`: exports/{export}. Any thread.
v1::Connection DescribeConnection(const std::string& export_name,
                                  const engine::ConnectionState& state);

}  // namespace gabion::service
