// What all stores ask of a commit, and say about rows that are not as expected. Used by stores
// only.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "absl/status/status.h"
#include "service/store/metadata_store.h"

namespace gabion::service {

// Crashes unless the caller of Commit() has kept what it REQUIRES.
void CheckSteps(std::span<const Mutation> steps);

// Whether the change log has anything of them.
bool AnyLogged(std::span<const Mutation> steps);

// `revision`: of the row as it is; unset if there is none. Not for kTouch.
absl::Status CheckExpectation(const Mutation& step, std::optional<uint64_t> revision);

absl::Status NoSuchRow(std::string_view name);

// OUT_OF_RANGE unless trimmed_through <= after <= revision. `trimmed_through`: the last change that
// was trimmed.
absl::Status CheckLogPosition(uint64_t after, uint64_t trimmed_through, uint64_t revision);

}  // namespace gabion::service
