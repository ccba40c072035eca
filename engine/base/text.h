// Debian's absl::string_view is a type of its own. Gabion uses std::string_view; this is the one
// border.
#pragma once

#include <string_view>

#include "absl/strings/string_view.h"

namespace gabion {

inline absl::string_view AsAbsl(std::string_view text) { return {text.data(), text.size()}; }
inline std::string_view AsStd(absl::string_view text) { return {text.data(), text.size()}; }

}  // namespace gabion
