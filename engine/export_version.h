// From an export's declaration to what clients are told.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "engine/image.h"
#include "engine/nbd/server/export.h"

namespace gabion::engine {

// Resolves the block sizes of `spec` over `image` and builds the nodes that they need above it.
// Pure but for the nodes, which live on the image's shard. Errors carry the reasons of the
// block-size rules.
absl::StatusOr<std::unique_ptr<nbd::ExportVersion>> MakeExportVersion(const ExportSpec& spec,
                                                                      Image& image,
                                                                      uint64_t version_id,
                                                                      runtime::ReadyQueue& ready);

}  // namespace gabion::engine
