// Strings of the NBD protocol: UTF-8 without NUL, at most 4096 bytes. Pure functions: any thread.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace gabion::nbd {

bool IsUtf8(std::string_view text);

// The longest prefix of at most `limit` bytes that does not end inside a character.
std::string_view ClipUtf8(std::string_view text, size_t limit);

// INVALID_ARGUMENT, naming `what`, if `text` breaks a rule for strings.
absl::Status ValidateString(std::string_view what, std::string_view text);

// `text` for a message: in quotes, control characters and stray bytes escaped, cut after 64 bytes.
std::string Quoted(std::string_view text);

}  // namespace gabion::nbd
