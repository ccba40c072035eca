// From an export's declaration to what clients are told.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "engine/block/node.h"
#include "engine/engine.h"
#include "engine/nbd/server/export.h"

namespace gabion::engine {

// Resolves the block sizes of `spec` over `disk`, the top of its filters, and builds the nodes that
// they need above it. Pure but for the nodes, which live on the disk's shard. Errors carry the
// reasons of the block-size rules. REQUIRES: disk.limits().alignment is 1.
absl::StatusOr<std::unique_ptr<nbd::ExportVersion>> MakeExportVersion(const ExportSpec& spec,
                                                                      block::Node& disk,
                                                                      uint64_t version_id,
                                                                      runtime::ReadyQueue& ready);

}  // namespace gabion::engine
