// Fuzz target: page tokens. The input is "query\ntoken"; no token that was not sealed for the query
// may open, and every one that was opens.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "engine/base/check.h"
#include "service/domain/page_token.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const gabion::service::PageTokens tokens("a key of thirty-two bytes: 012345");
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const size_t line = std::min(text.find('\n'), text.size());
  const std::string_view query = text.substr(0, line);
  const std::string_view token = line < text.size() ? text.substr(line + 1) : std::string_view();

  const auto opened = tokens.Open(query, token);
  if (opened.ok()) CHECK(token.empty() || tokens.Seal(query, *opened) == token);
  if (!opened.ok()) CHECK(opened.status().code() == absl::StatusCode::kInvalidArgument);

  // The token as a key: what is sealed for one query opens for that query only.
  if (token.empty()) return 0;
  const std::string sealed = tokens.Seal(query, token);
  const auto again = tokens.Open(query, sealed);
  CHECK(again.ok() && *again == token);
  CHECK(!tokens.Open(std::string(query) + "x", sealed).ok());
  return 0;
}
