#include "engine/filters/verity/hash_tree.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "engine/base/align.h"
#include "engine/base/bytes.h"
#include "engine/base/little_endian.h"
#include "engine/base/status_macros.h"
#include "engine/base/text.h"

namespace gabion::verity {
namespace {

constexpr std::string_view kSignature("verity\0\0", 8);
constexpr uint32_t kVersion = 1;
constexpr std::size_t kNameBytes = 32;
constexpr uint64_t kLargestDisk = std::numeric_limits<int64_t>::max();

absl::Status Unknown(const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat("the hash image has ", what));
}
absl::Status Senseless(const std::string& what) {
  return absl::DataLossError(absl::StrCat("the superblock of the hash image is damaged: ", what));
}

std::optional<Algorithm> AlgorithmOf(std::string_view name) {
  for (const Algorithm algorithm : {Algorithm::kSha256, Algorithm::kSha512}) {
    if (name == NameOf(algorithm)) return algorithm;
  }
  return std::nullopt;
}

absl::Status DecodeKind(Bytes start, TreeShape& shape) {
  if (AsText(start.first(kSignature.size())) != kSignature) {
    return Unknown("no superblock of dm-verity");
  }
  const uint32_t version = LoadLe32(start, 8);
  if (version != kVersion) {
    return Unknown(absl::StrCat("a superblock of version ", version, ", not ", kVersion));
  }
  const uint32_t type = LoadLe32(start, 12);
  if (type > 1) return Unknown(absl::StrCat("hash type ", type, ", not 0 or 1"));
  shape.salt_first = type == 1;
  const std::string_view field = AsText(start.subspan(32, kNameBytes));
  const std::string_view name = field.substr(0, field.find('\0'));
  const std::optional<Algorithm> algorithm = AlgorithmOf(name);
  if (!algorithm.has_value()) {
    return Unknown(absl::StrCat("digests by '", absl::CHexEscape(AsAbsl(name)),
                                "', and Gabion knows sha256 and sha512"));
  }
  shape.algorithm = *algorithm;
  return absl::OkStatus();
}

absl::StatusOr<uint32_t> DecodeBlockBytes(Bytes start, std::size_t at, std::string_view what) {
  const uint32_t bytes = LoadLe32(start, at);
  if (bytes >= kSmallestBlock && bytes <= kLargestBlock && IsPowerOfTwo(bytes)) return bytes;
  return Senseless(absl::StrCat("a ", AsAbsl(what), " block of ", bytes,
                                " bytes, which is no power of two from ", kSmallestBlock, " to ",
                                kLargestBlock));
}

absl::Status DecodeNumbers(Bytes start, TreeShape& shape) {
  ASSIGN_OR_RETURN(shape.data_block_bytes, DecodeBlockBytes(start, 64, "data"));
  ASSIGN_OR_RETURN(shape.hash_block_bytes, DecodeBlockBytes(start, 68, "hash"));
  shape.data_blocks = LoadLe64(start, 72);
  if (shape.data_blocks == 0 || shape.data_blocks > kLargestDisk / shape.data_block_bytes) {
    return Senseless(absl::StrCat(shape.data_blocks, " data blocks of ", shape.data_block_bytes,
                                  " bytes, which make no disk"));
  }
  const std::size_t salt_bytes = LoadLe16(start, 80);
  if (salt_bytes > kMostSalt) {
    return Senseless(absl::StrCat("a salt of ", salt_bytes, " bytes; at most ", kMostSalt));
  }
  const Bytes salt = start.subspan(88, salt_bytes);
  shape.salt.assign(salt.begin(), salt.end());
  return absl::OkStatus();
}

}  // namespace

std::string_view NameOf(Algorithm algorithm) {
  return algorithm == Algorithm::kSha256 ? "sha256" : "sha512";
}

absl::StatusOr<HashTree> HashTree::Decode(Bytes start, ByteCount image_size) {
  if (start.size() < kSuperblockBytes || image_size.value < kSuperblockBytes) {
    return Unknown(absl::StrCat(std::min<uint64_t>(start.size(), image_size.value),
                                " bytes, less than the ", kSuperblockBytes, " of a superblock"));
  }
  TreeShape shape;
  RETURN_IF_ERROR(DecodeKind(start, shape));
  RETURN_IF_ERROR(DecodeNumbers(start, shape));
  HashTree tree(std::move(shape));
  const uint64_t each = tree.digests_per_block();
  for (uint64_t below = tree.shape_.data_blocks; below > 1;) {
    below = below / each + (below % each != 0 ? 1 : 0);
    tree.levels_.push_back({.blocks = below});
  }
  // In hash blocks: there are fewer than data blocks, so that no sum overflows.
  uint64_t end = 1;
  for (auto level = tree.levels_.rbegin(); level != tree.levels_.rend(); ++level) {
    level->first = end;
    end += level->blocks;
  }
  const uint64_t block = tree.shape_.hash_block_bytes;
  if (!tree.levels_.empty() && end > image_size.value / block) {
    return absl::DataLossError(absl::StrCat("the hash tree of ", tree.shape_.data_blocks,
                                            " data blocks has ", end - 1, " hash blocks of ", block,
                                            " bytes behind the superblock's, and the image ",
                                            "ends at byte ", image_size.value));
  }
  return tree;
}

Digest HashTree::DigestIn(Bytes holder, uint64_t below) const {
  Digest digest{};
  const Bytes bytes = holder.subspan(below % digests_per_block() * digest_bytes(), digest_bytes());
  std::copy(bytes.begin(), bytes.end(), digest.begin());
  return digest;
}

}  // namespace gabion::verity
