// Files over a pool of threads, for hosts that refuse io_uring.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "engine/io/file.h"
#include "engine/io/unique_fd.h"
#include "engine/runtime/worker_pool.h"

namespace gabion::io {

// A file over `fd`, buffered or direct, readable or writable as it was opened; see os_file.h. On
// the shard of `workers`, which outlives it. As many operations run at once as the pool has
// threads.
absl::StatusOr<std::unique_ptr<File>> NewPoolFile(UniqueFd fd, runtime::Workers& workers);

}  // namespace gabion::io
