#include "service/domain/page_token.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <sys/random.h>

#include <algorithm>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/text.h"
#include "service/errors.h"

namespace gabion::service {
namespace {

constexpr std::size_t kKeyBytes = 32;
constexpr int kDefaultPageSize = 50;
constexpr int kLargestPage = 1000;

absl::Status Invalid() {
  constexpr std::string_view kMessage =
      "The page token is not the next_page_token of an earlier page of this list.";
  return Error(reason::kPageTokenInvalid, kMessage).Field("page_token", kMessage);
}

}  // namespace

PageTokens::PageTokens(std::string key) : key_(std::move(key)) {}

PageTokens::Mac PageTokens::MacOf(std::string_view query, std::string_view last_key) const {
  // The length in front keeps (query, key) pairs apart that are the same when joined.
  const std::string sealed = absl::StrCat(query.size(), ":", AsAbsl(query), AsAbsl(last_key));
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest;
  unsigned int length = 0;
  CHECK(HMAC(EVP_sha256(), key_.data(), static_cast<int>(key_.size()),
             reinterpret_cast<const unsigned char*>(sealed.data()), sealed.size(), digest.data(),
             &length) != nullptr);
  Mac mac;
  std::copy_n(digest.begin(), mac.size(), mac.begin());
  return mac;
}

std::string PageTokens::Seal(std::string_view query, std::string_view last_key) const {
  const Mac mac = MacOf(query, last_key);
  std::string plain(reinterpret_cast<const char*>(mac.data()), mac.size());
  plain += last_key;
  return absl::WebSafeBase64Escape(plain);
}

absl::StatusOr<std::string> PageTokens::Open(std::string_view query, std::string_view token) const {
  if (token.empty()) return std::string();
  std::string plain;
  if (!absl::WebSafeBase64Unescape(AsAbsl(token), &plain)) return Invalid();
  if (plain.size() <= sizeof(Mac)) return Invalid();
  std::string last_key = plain.substr(sizeof(Mac));
  // Sealed again it must be the same: base64 has several spellings for some texts.
  const std::string sealed = Seal(query, last_key);
  if (sealed.size() != token.size() ||
      CRYPTO_memcmp(sealed.data(), token.data(), token.size()) != 0) {
    return Invalid();
  }
  return last_key;
}

std::string NewPageTokenKey() {
  std::string key(kKeyBytes, '\0');
  CHECK_EQ(getrandom(key.data(), key.size(), 0), static_cast<ssize_t>(key.size()));
  return key;
}

int PageSize(int requested) {
  return requested == 0 ? kDefaultPageSize : std::min(requested, kLargestPage);
}

}  // namespace gabion::service
