// Files over the shard's io_uring.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "engine/io/file.h"
#include "engine/io/ring.h"
#include "engine/io/unique_fd.h"
#include "engine/runtime/worker_pool.h"

namespace gabion::io {

// A file over `fd`, buffered or direct, readable or writable as it was opened; see os_file.h. On
// the shard of `ring` and `workers`, which outlive it.
absl::StatusOr<std::unique_ptr<File>> NewUringFile(UniqueFd fd, Ring& ring,
                                                   runtime::Workers& workers);

}  // namespace gabion::io
