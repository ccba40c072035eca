#include "engine/base/reason.h"

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/text.h"

namespace gabion {
namespace {

// The payload: reason, key, value, key, value, ..., each ended by a NUL.
constexpr absl::string_view kPayload = "gabion/reason";

}  // namespace

absl::Status WithReason(absl::Status status, const Reason& reason) {
  CHECK(!status.ok());
  std::string flat = reason.reason;
  flat.push_back('\0');
  for (const auto& [key, value] : reason.metadata) {
    flat += key;
    flat.push_back('\0');
    flat += value;
    flat.push_back('\0');
  }
  status.SetPayload(kPayload, absl::Cord(flat));
  return status;
}

std::optional<Reason> ReasonOf(const absl::Status& status) {
  const absl::optional<absl::Cord> payload = status.GetPayload(kPayload);
  if (!payload.has_value()) return std::nullopt;
  std::vector<std::string> parts;
  std::string part;
  for (const char c : std::string(*payload)) {
    if (c != '\0') {
      part.push_back(c);
    } else {
      parts.push_back(std::move(part));
      part.clear();
    }
  }
  CHECK(!parts.empty());
  Reason reason{std::move(parts[0]), {}};
  for (std::size_t i = 1; i + 1 < parts.size(); i += 2) {
    reason.metadata.emplace_back(std::move(parts[i]), std::move(parts[i + 1]));
  }
  return reason;
}

absl::Status Annotate(const absl::Status& status, std::string_view context) {
  if (status.ok()) return status;
  absl::Status annotated(status.code(), absl::StrCat(AsAbsl(context), ": ", status.message()));
  status.ForEachPayload([&](absl::string_view type, const absl::Cord& payload) {
    annotated.SetPayload(type, payload);
  });
  return annotated;
}

}  // namespace gabion
