// Files of images inside of their pool.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "gabion/v1/image.pb.h"

namespace gabion::service {

// Where the engine finds `image`.
engine::ImageSpec SpecOf(const v1::Image& image);

// A file name relative to a pool, in its one spelling: without empty and `.` segments.
// PATH_OUTSIDE_POOL (at the field `source_file`) for an absolute one, one with `..`, or none.
absl::StatusOr<std::string> NormalizeFileName(std::string_view file_name);

// The image whose file `file_name` (normalized) would be: "images/a" for "a.raw". Nothing if no
// image's file is called so.
std::optional<std::string> ImageOfFileName(std::string_view file_name);

}  // namespace gabion::service
