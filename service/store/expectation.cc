#include "service/store/expectation.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/text.h"

namespace gabion::service {

void CheckSteps(std::span<const Mutation> steps) {
  CHECK(!steps.empty());
  for (const Mutation& step : steps) {
    if (step.kind != Mutation::Kind::kTouch) continue;
    CHECK(!step.expected_revision.has_value());
    CHECK(IsLogged(step.collection));
  }
}

bool AnyLogged(std::span<const Mutation> steps) {
  return std::ranges::any_of(steps, [](const Mutation& step) { return IsLogged(step.collection); });
}

absl::Status CheckExpectation(const Mutation& step, std::optional<uint64_t> revision) {
  const bool expects_none = step.expected_revision == uint64_t{0};
  if (expects_none && revision.has_value()) {
    return absl::AlreadyExistsError(absl::StrCat(step.name, " exists already"));
  }
  const bool needs_row =
      step.kind == Mutation::Kind::kDelete || (step.expected_revision.has_value() && !expects_none);
  if (needs_row && !revision.has_value()) return NoSuchRow(step.name);
  if (step.expected_revision.has_value() && !expects_none && revision != step.expected_revision) {
    return absl::AbortedError(
        absl::StrCat(step.name, " is at revision ", *revision, ", not ", *step.expected_revision));
  }
  return absl::OkStatus();
}

absl::Status NoSuchRow(std::string_view name) {
  return absl::NotFoundError(absl::StrCat("there is no ", AsAbsl(name)));
}

absl::Status CheckLogPosition(uint64_t after, uint64_t trimmed_through, uint64_t revision) {
  if (after < trimmed_through) {
    return absl::OutOfRangeError(absl::StrCat("changes after revision ", after,
                                              " are asked for; the log starts after revision ",
                                              trimmed_through));
  }
  if (after > revision) {
    return absl::OutOfRangeError(absl::StrCat("changes after revision ", after,
                                              " are asked for; the last one is ", revision));
  }
  return absl::OkStatus();
}

}  // namespace gabion::service
