// What an export does with images, as its filters say.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "engine/engine.h"
#include "engine/image.h"

namespace gabion::engine {

// Whether what is below the first `count` of `filters` is written to, if the export is or is not
// `read_only`.
bool WritesBelow(bool read_only, const std::vector<FilterEntry>& filters, std::size_t count);

// The image that the entry needs besides the export's own; null: none.
const ImageSpec* OtherImageOf(const FilterOptions& options);

// What entry `index` of `filters` does with that image.
ImageUse UseOfOtherImage(bool read_only, const std::vector<FilterEntry>& filters,
                         std::size_t index);

// Whether the export's image, or one that its filters need, has this name.
bool UsesImage(const ExportSpec& spec, const std::string& image_name);

// What the export does with its image: whether it writes, and whether others may.
ImageUse UseOfImage(const ExportSpec& spec);

// `status`, which says that the image cannot be used so, with the entry that wants it to be.
absl::Status BlameFilter(const absl::Status& status, const ExportSpec& spec);

}  // namespace gabion::engine
