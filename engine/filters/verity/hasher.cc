#include "engine/filters/verity/hasher.h"

#include <openssl/evp.h>

#include "absl/status/status.h"
#include "engine/base/check.h"
#include "engine/base/status_macros.h"

namespace gabion::verity {
namespace {

// To be made ready for each block without naming the algorithm: that would look it up each time.
EVP_MD_CTX* NewContext(Algorithm algorithm) {
  EVP_MD_CTX* const context = EVP_MD_CTX_new();
  const EVP_MD* const digest = algorithm == Algorithm::kSha256 ? EVP_sha256() : EVP_sha512();
  if (context != nullptr && EVP_DigestInit_ex(context, digest, nullptr) == 1) return context;
  EVP_MD_CTX_free(context);
  return nullptr;
}

}  // namespace

void Hasher::Free::operator()(evp_md_ctx_st* context) const { EVP_MD_CTX_free(context); }

Hasher::Hasher(const HashTree& tree) : tree_(tree), context_(NewContext(tree.shape().algorithm)) {}

absl::StatusOr<Digest> Hasher::Hash(Bytes block) {
  const TreeShape& shape = tree_.shape();
  const Bytes first = shape.salt_first ? Bytes(shape.salt) : block;
  const Bytes second = shape.salt_first ? block : Bytes(shape.salt);
  Digest digest{};
  if (context_ == nullptr || EVP_DigestInit_ex(context_.get(), nullptr, nullptr) != 1 ||
      EVP_DigestUpdate(context_.get(), first.data(), first.size()) != 1 ||
      EVP_DigestUpdate(context_.get(), second.data(), second.size()) != 1 ||
      EVP_DigestFinal_ex(context_.get(), reinterpret_cast<unsigned char*>(digest.data()),
                         nullptr) != 1) {
    return absl::InternalError("the library of digests failed");
  }
  return digest;
}

absl::StatusOr<Misfits> Hasher::Compare(Bytes bytes,
                                        std::span<const std::optional<Digest>> expected) {
  CHECK(!expected.empty());
  const std::size_t block = bytes.size() / expected.size();
  CHECK_EQ(block * expected.size(), bytes.size());
  Misfits misfits;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (!expected[i].has_value()) continue;
    ASSIGN_OR_RETURN(const Digest digest, Hash(bytes.subspan(i * block, block)));
    if (digest == *expected[i]) continue;
    if (misfits.count++ == 0) misfits.first = i;
  }
  return misfits;
}

}  // namespace gabion::verity
