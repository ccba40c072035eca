// Collects what is wrong with one request. Used by validate only.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace gabion::service {

struct Violation {
  std::string field;
  std::string description;
  std::string reason;
  std::string value;    // empty: not told
  std::string allowed;  // empty: not told
};

// OK if there are none.
absl::Status ToStatus(const std::vector<Violation>& violations);

}  // namespace gabion::service
