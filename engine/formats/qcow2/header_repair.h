// Changes of single fields of a qcow2 header in place.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "engine/formats/qcow2/header.h"
#include "engine/formats/qcow2/table_file.h"
#include "engine/runtime/task.h"

namespace gabion::qcow2 {

// Writes the fields that a check may change: place and size of the refcount table and the feature
// bits, as `header` has them. One write of the first 512 bytes, so that after a crash either all of
// the old or all of the new is there. Not synced.
Task<absl::Status> WriteCheckedFields(TableFile& file, const Header& header);

}  // namespace gabion::qcow2
