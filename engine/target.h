// A disk opened for inspection: see Target in engine.h.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "engine/home.h"
#include "engine/shard_server.h"

namespace gabion::engine {

// What a target needs to know of how it was opened.
struct TargetSource {
  ImageSpec image;
  bool writable = false;
  // Set for an export: what its clients see.
  std::optional<ExportSpec> exported;
};

// Opens it on the image's shard. Runs on that shard; the target itself may be used and destroyed
// anywhere.
Task<absl::StatusOr<std::unique_ptr<Target>>> OpenTarget(ShardServer& server, TargetSource source,
                                                         const io::Directory* pool);

}  // namespace gabion::engine
