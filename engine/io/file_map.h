// Data and holes of a file, by SEEK_DATA and SEEK_HOLE.
#pragma once

#include <cstddef>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/base/units.h"
#include "engine/io/file.h"

namespace gabion::io {

// Extents of a prefix of `range`, which is not empty: at least one, at most `max_extents` (>= 1).
// All data where the file system does not tell. May wait for metadata. Any thread; moves the
// position of the descriptor.
absl::StatusOr<std::vector<FileExtent>> MapFile(int fd, ByteRange range, std::size_t max_extents);

}  // namespace gabion::io
