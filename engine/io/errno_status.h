// What the operating system says, as a Status: the one place where errno is translated.
#pragma once

#include <string_view>

#include "absl/status/status.h"

namespace gabion::io {

// "write: No space left on device". `operation` is what was tried, for people; never a path.
// REQUIRES: error > 0.
absl::Status ErrnoStatus(int error, std::string_view operation);

}  // namespace gabion::io
