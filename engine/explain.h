// Finds out why a range of a disk is what it is: from block status alone, level by level.
#pragma once

#include "absl/status/statusor.h"
#include "engine/base/units.h"
#include "engine/explanation.h"
#include "engine/filter_stack.h"
#include "engine/image.h"
#include "engine/nbd/server/export.h"
#include "engine/runtime/task.h"

namespace gabion::engine {

// Explains the first bytes of `range`, as many as are of one kind. REQUIRES: `range` is not empty
// and lies within the image, or the export.
Task<absl::StatusOr<Explanation>> ExplainImage(Image& image, ByteRange range);
// The version's nodes, the stack and the image stay as they are until it is done.
Task<absl::StatusOr<Explanation>> ExplainExport(const nbd::ExportVersion& version,
                                                const FilterStack& stack, Image& image,
                                                ByteRange range);

}  // namespace gabion::engine
