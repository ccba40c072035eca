// What makes a resource this one: uids, times, names.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "google/protobuf/timestamp.pb.h"

namespace gabion::service {

// A random UUID of version 4 (RFC 9562) from the kernel's generator. Any thread.
std::string NewUid();

// The wall clock.
google::protobuf::Timestamp Now();

// exports/{export}/connections/{id}
struct ConnectionName {
  std::string export_name;  // exports/{export}
  uint64_t id = 0;
};
std::string FormatConnectionName(const ConnectionName& name);
// Nothing: not such a name. Ids are decimal numbers without leading zeros.
std::optional<ConnectionName> ParseConnectionName(std::string_view name);

}  // namespace gabion::service
