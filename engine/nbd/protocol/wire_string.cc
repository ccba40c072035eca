#include "engine/nbd/protocol/wire_string.h"

#include <algorithm>
#include <cstdint>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "engine/base/text.h"
#include "engine/nbd/protocol/wire.h"

namespace gabion::nbd {
namespace {

constexpr size_t kQuotedLimit = 64;

bool IsContinuation(char byte) { return (static_cast<uint8_t>(byte) & 0xc0) == 0x80; }

// The length of the character at the front of `text`, or 0 if there is none that is well formed:
// overlong forms, surrogates and code points above U+10FFFF are not.
size_t CharacterLength(std::string_view text) {
  const auto first = static_cast<uint8_t>(text[0]);
  if (first < 0x80) return 1;
  const size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if (!IsContinuation(text[i])) return 0;
  }
  const auto second = static_cast<uint8_t>(text[1]);
  if ((first == 0xe0 && second < 0xa0) || (first == 0xed && second > 0x9f)) return 0;
  if ((first == 0xf0 && second < 0x90) || (first == 0xf4 && second > 0x8f)) return 0;
  return length;
}

}  // namespace

bool IsUtf8(std::string_view text) {
  while (!text.empty()) {
    const size_t length = CharacterLength(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

std::string_view ClipUtf8(std::string_view text, size_t limit) {
  if (text.size() <= limit) return text;
  while (limit > 0 && IsContinuation(text[limit])) --limit;
  return text.substr(0, limit);
}

absl::Status ValidateString(std::string_view what, std::string_view text) {
  if (text.size() > kMaxString) {
    return absl::InvalidArgumentError(absl::StrCat(
        AsAbsl(what), " has ", text.size(), " bytes, more than the ", kMaxString, " allowed"));
  }
  if (const size_t at = text.find('\0'); at != text.npos) {
    return absl::InvalidArgumentError(
        absl::StrCat(AsAbsl(what), " contains a NUL byte at position ", at));
  }
  if (!IsUtf8(text)) {
    return absl::InvalidArgumentError(
        absl::StrCat(AsAbsl(what), " is not valid UTF-8: ", Quoted(text)));
  }
  return absl::OkStatus();
}

std::string Quoted(std::string_view text) {
  const std::string_view shown = ClipUtf8(text, kQuotedLimit);
  const absl::string_view view = AsAbsl(shown);
  const std::string escaped =
      IsUtf8(shown) ? absl::Utf8SafeCHexEscape(view) : absl::CHexEscape(view);
  return absl::StrCat("\"", escaped, shown.size() < text.size() ? "...\"" : "\"");
}

}  // namespace gabion::nbd
