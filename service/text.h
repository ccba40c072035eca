// Text for answers and logs.
#pragma once

#include <string>
#include <string_view>

namespace gabion::service {

// `text` as valid UTF-8 without control characters (others become '?'), cut to at most `max_bytes`
// at a character's border; "..." shows a cut.
std::string Printable(std::string_view text, size_t max_bytes);

// `text` as a JSON string, quotes included. Invalid UTF-8 becomes '?'.
std::string JsonQuote(std::string_view text);

}  // namespace gabion::service
