// The disk format of dm-verity, version 1, as `veritysetup format` makes it (cryptsetup's wiki,
// DMVerity; Linux, admin-guide/device-mapper/verity.rst). Pure.
//
// A hash image begins with a superblock (little-endian):
//   0..7     "verity\0\0"
//   8..11    version, 1
//   12..15   hash type: 1, the salt is in front of what is hashed; 0 (Chrome OS), it is behind it
//   16..31   UUID
//   32..63   name of the algorithm, zeros behind it
//   64..67   bytes of a data block
//   68..71   bytes of a hash block
//   72..79   number of data blocks
//   80..81   bytes of salt
//   88..343  salt, zeros behind it
//   344..511 zeros
//
// The tree begins at the next hash block. A hash block holds the digests of blocks that lie side by
// side, one behind the other: of data blocks on level 0, of blocks of the level below on the
// others. The top level comes first in the image, and is one block, whose digest is the root
// digest: what is known from elsewhere. A disk of one data block has no levels; its digest is the
// root digest.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/base/units.h"

namespace gabion::verity {

enum class Algorithm : uint8_t { kSha256, kSha512 };

// Of any algorithm; zeros behind those that are shorter.
using Digest = std::array<std::byte, 64>;

// Both lengths are powers of two, so that digests in a hash block need no padding, in both types.
constexpr std::size_t DigestBytes(Algorithm algorithm) {
  return algorithm == Algorithm::kSha256 ? 32 : 64;
}
// By veritysetup's names.
std::string_view NameOf(Algorithm algorithm);

inline constexpr std::size_t kSuperblockBytes = 512;
// Of both kinds of blocks. Linux takes data blocks of up to a page only; veritysetup makes and
// verifies all of these, and so does Gabion.
inline constexpr uint32_t kSmallestBlock = 512;
inline constexpr uint32_t kLargestBlock = 512 * 1024;
inline constexpr std::size_t kMostSalt = 256;

// What a superblock says.
struct TreeShape {
  Algorithm algorithm = Algorithm::kSha256;
  bool salt_first = true;  // hash type 1
  uint32_t data_block_bytes = 4096;
  uint32_t hash_block_bytes = 4096;
  uint64_t data_blocks = 1;
  std::vector<std::byte> salt;
};

// A sound superblock, and where everything is. A value; any thread.
class HashTree {
 public:
  // Decodes the beginning of a hash image of `image_size` bytes: as many as there are, up to
  // kSuperblockBytes. kInvalidArgument: there is no superblock, or one of a kind that Gabion does
  // not know; kDataLoss: its numbers make no sense, the disk would be larger than any is, or the
  // tree ends behind the image.
  static absl::StatusOr<HashTree> Decode(Bytes start, ByteCount image_size);

  const TreeShape& shape() const { return shape_; }
  std::size_t digest_bytes() const { return DigestBytes(shape_.algorithm); }
  ByteCount data_size() const { return {shape_.data_blocks * shape_.data_block_bytes}; }

  std::size_t levels() const { return levels_.size(); }
  // How many hash blocks a level has. REQUIRES: level < levels().
  uint64_t BlocksOf(std::size_t level) const { return levels_[level].blocks; }
  // Where a hash block is in the image. REQUIRES: the level has it.
  ByteRange BlockAt(std::size_t level, uint64_t block) const {
    return Range((levels_[level].first + block) * shape_.hash_block_bytes, shape_.hash_block_bytes);
  }

  uint64_t digests_per_block() const { return shape_.hash_block_bytes / digest_bytes(); }
  // Which block of a level has the digest of block `below` of the level below, or of data block
  // `below`; and the digest of that in the `holder`.
  uint64_t HolderOf(uint64_t below) const { return below / digests_per_block(); }
  Digest DigestIn(Bytes holder, uint64_t below) const;

 private:
  struct Level {
    uint64_t first = 0;  // where it begins in the image, in hash blocks
    uint64_t blocks = 0;
  };

  explicit HashTree(TreeShape shape) : shape_(std::move(shape)) {}

  TreeShape shape_;
  std::vector<Level> levels_;  // from the data up
};

}  // namespace gabion::verity
