#include "service/violations.h"

#include "service/errors.h"

namespace gabion::service {

absl::Status ToStatus(const std::vector<Violation>& violations) {
  if (violations.empty()) return absl::OkStatus();
  const Violation& first = violations.front();
  const ErrorReason* known = FindReason(first.reason);
  const ErrorReason reason{first.reason,
                           known == nullptr ? absl::StatusCode::kInvalidArgument : known->code};
  std::string message = first.field + ": " + first.description;
  if (violations.size() > 1) {
    message += " (and " + std::to_string(violations.size() - 1) + " more)";
  }
  Error error(reason, message);
  for (const Violation& violation : violations) {
    error.Field(violation.field, violation.description, violation.reason);
  }
  if (!first.value.empty()) error.Metadata("value", first.value);
  if (!first.allowed.empty()) error.Metadata("allowed", first.allowed);
  return error;
}

}  // namespace gabion::service
