// Page sizes and page tokens of List methods.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace gabion::service {

// Which rows a page shows.
struct PageWanted {
  size_t size = 0;    // at most this many
  std::string after;  // rows behind this key; empty: from the first one
};

// From the fields of a List request. `collection`: what is listed ("images",
// "exports/e/connections"); tokens of another one are refused. page_size: 0 is 50, above 1000 is
// 1000; PAGE_SIZE_NEGATIVE is left to PrepareRequest(). INVALID_ARGUMENT PAGE_TOKEN_INVALID.
absl::StatusOr<PageWanted> ParsePage(std::string_view collection, int32_t page_size,
                                     std::string_view page_token);

// The next_page_token of a page that ends with the key `last`.
std::string MakePageToken(std::string_view collection, std::string_view last);

}  // namespace gabion::service
