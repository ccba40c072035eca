// A commit between the call and its answer. Used by stores only.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "service/store/metadata_store.h"

namespace gabion::service {

// A call of MetadataStore::Commit(). Owned by its caller, who waits for the answer and must not
// look at it before.
struct PendingCommit {
  const std::vector<Mutation>* steps = nullptr;
  absl::StatusOr<uint64_t> answer = uint64_t{0};
};

}  // namespace gabion::service
