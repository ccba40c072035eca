// Files of images inside of their pool.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "gabion/v1/image.pb.h"
#include "service/domain/records.h"

namespace gabion::service {

// Where the engine finds `image`, without the images below it: enough to look at its file, or to
// remove it.
engine::ImageSpec SpecOf(const v1::Image& image);
// The same with all images below it: enough to use it. The rows are read from `records`.
absl::StatusOr<engine::ImageSpec> ChainSpec(const Records<v1::Image>& records,
                                            const v1::Image& image);
// Only those below it, the nearest one first.
absl::StatusOr<std::vector<engine::ImageSpec>> BackingSpecs(const Records<v1::Image>& records,
                                                            const v1::Image& image);

// A file name relative to a pool, in its one spelling: without empty and `.` segments.
// PATH_OUTSIDE_POOL (at the field `source_file`) for an absolute one, one with `..`, or none.
absl::StatusOr<std::string> NormalizeFileName(std::string_view file_name);

// The image whose file `file_name` (normalized) would be: "images/a" for "a.raw" or "a.qcow2".
// Nothing if no image's file is called so.
std::optional<std::string> ImageOfFileName(std::string_view file_name);

}  // namespace gabion::service
