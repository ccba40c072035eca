// A disk opened for inspection: see Target in engine.h.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "engine/shard_server.h"

namespace gabion::engine {

// Opens an image on its shard; holds it open. Runs on that shard; the target itself may be used and
// destroyed anywhere.
Task<absl::StatusOr<std::unique_ptr<Target>>> MakeImageTarget(ShardServer& server, ImageSpec image,
                                                              bool writable,
                                                              const io::Directory* pool);

// What clients of a served export see. Holds nothing: every call finds the export anew, and fails
// with kNotFound when it is another one, or gone. Runs on the export's shard, as above.
absl::StatusOr<std::unique_ptr<Target>> MakeExportTarget(ShardServer& server,
                                                         const std::string& export_name);

}  // namespace gabion::engine
