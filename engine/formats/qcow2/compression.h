// Compressed clusters: pure functions from bytes to bytes. Any thread may call them.
#pragma once

#include <cstddef>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/base/units.h"
#include "engine/formats/qcow2/header.h"

namespace gabion::qcow2 {

// Decompresses what `compressed` begins with into all of `cluster`. `compressed` may go on behind
// the data, because an L2 entry counts in sectors. kDataLoss: it is damaged, or is less or more
// than a cluster; what `cluster` holds then is unspecified. Needs less than a MiB of memory,
// whatever the data asks for.
absl::Status Inflate(Compression compression, Bytes compressed, MutableBytes cluster);

// Compresses `cluster` so that Gabion and QEMU can read it; the bytes of `out` that are used.
// kResourceExhausted: they are not enough, so store the cluster as it is.
absl::StatusOr<std::size_t> Deflate(Compression compression, Bytes cluster, MutableBytes out);

}  // namespace gabion::qcow2
