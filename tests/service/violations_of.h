// What an error says about fields, for tests.
#pragma once

#include <string>
#include <vector>

#include "service/errors.h"

namespace gabion::service {

// "field REASON" of every field violation in the error.
inline std::vector<std::string> ViolationsOf(const absl::Status& status) {
  std::vector<std::string> violations;
  const google::rpc::Status wire = ToRpcStatus(status);
  for (const auto& any : wire.details()) {
    google::rpc::BadRequest bad;
    if (!any.UnpackTo(&bad)) continue;
    for (const auto& violation : bad.field_violations()) {
      violations.push_back(violation.field() + " " + violation.reason());
    }
  }
  return violations;
}

}  // namespace gabion::service
