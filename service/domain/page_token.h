// Tokens that say where the next page of a list begins.
#pragma once

#include <array>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace gabion::service {

// Seals the place where a list goes on, so that a token that was not made here, or was made for
// another list, is told apart from one that was. Immutable; any thread.
class PageTokens {
 public:
  // `key`: random bytes, kept with the stored state so that tokens outlive a restart.
  explicit PageTokens(std::string key);

  // `query`: everything that must not change between pages, e.g. the method and the parent.
  // `last_key`: the key of the last element of the page.
  std::string Seal(std::string_view query, std::string_view last_key) const;

  // The last key; empty for an empty token, the first page. PAGE_TOKEN_INVALID.
  absl::StatusOr<std::string> Open(std::string_view query, std::string_view token) const;

 private:
  using Mac = std::array<unsigned char, 16>;
  Mac MacOf(std::string_view query, std::string_view last_key) const;

  std::string key_;
};

// A fresh key for PageTokens, from the kernel's generator.
std::string NewPageTokenKey();

// How many elements a page has: 0 asks for the default, and there is a cap.
int PageSize(int requested);

}  // namespace gabion::service
