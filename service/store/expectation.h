// What all stores say about rows that are not as expected. Used by stores only.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "absl/status/status.h"
#include "service/store/metadata_store.h"

namespace gabion::service {

// `revision`: of the row as it is; unset if there is none.
absl::Status CheckExpectation(const Mutation& step, std::optional<uint64_t> revision);

absl::Status NoSuchRow(std::string_view name);

// OUT_OF_RANGE unless trimmed_through <= after <= revision.
absl::Status CheckLogPosition(uint64_t after, uint64_t trimmed_through, uint64_t revision);

}  // namespace gabion::service
