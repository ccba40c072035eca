// A machine-readable reason inside an absl::Status: what a caller can decide by, beside the
// sentence for people.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"

namespace gabion {

struct Reason {
  std::string reason;  // UPPER_SNAKE_CASE, from the table of error reasons of the API
  std::vector<std::pair<std::string, std::string>> metadata;
};

// `status` with `reason` attached; replaces an earlier one. `status` must be an error. Neither
// reason, keys nor values contain '\0'.
absl::Status WithReason(absl::Status status, const Reason& reason);

// The reason attached to `status`, if there is one.
std::optional<Reason> ReasonOf(const absl::Status& status);

// The same status with `context` and ": " in front of its message; payloads are kept.
absl::Status Annotate(const absl::Status& status, std::string_view context);

}  // namespace gabion
