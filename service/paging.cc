#include "service/paging.h"

#include <algorithm>

#include "absl/strings/escaping.h"
#include "engine/base/text.h"
#include "service/errors.h"

namespace gabion::service {
namespace {

constexpr int32_t kDefaultSize = 50;
constexpr int32_t kMaxSize = 1000;

// The start of every token of a collection, before it is encoded.
std::string Prefix(std::string_view collection) { return "1\n" + std::string(collection) + "\n"; }

}  // namespace

absl::StatusOr<PageWanted> ParsePage(std::string_view collection, int32_t page_size,
                                     std::string_view page_token) {
  PageWanted wanted;
  wanted.size = static_cast<size_t>(page_size <= 0 ? kDefaultSize : std::min(page_size, kMaxSize));
  if (page_token.empty()) return wanted;
  std::string plain;
  const std::string prefix = Prefix(collection);
  // Encoded again it must be the same: base64 has several spellings for some texts.
  if (!absl::WebSafeBase64Unescape(AsAbsl(page_token), &plain) || !plain.starts_with(prefix) ||
      plain.size() == prefix.size() ||
      MakePageToken(collection, plain.substr(prefix.size())) != page_token) {
    return Error(reason::kPageTokenInvalid, "page_token is not the next_page_token of a page.")
        .Field("page_token", "must be empty or the next_page_token of the page before")
        .Build();
  }
  wanted.after = plain.substr(prefix.size());
  return wanted;
}

std::string MakePageToken(std::string_view collection, std::string_view last) {
  const std::string plain = Prefix(collection) + std::string(last);
  return absl::WebSafeBase64Escape(plain);
}

}  // namespace gabion::service
