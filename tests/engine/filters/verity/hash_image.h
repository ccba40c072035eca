// Hash images of dm-verity, made bottom-up: digests of all blocks, packed into blocks, until there
// is one. Knows nothing of engine/filters/verity.
#pragma once

#include <openssl/evp.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "engine/base/bytes.h"
#include "engine/base/check.h"
#include "engine/base/units.h"
#include "tests/support/random_source.h"

namespace gabion::test {

// As on the command line of veritysetup.
struct HashImageOptions {
  std::string algorithm = "sha256";
  uint32_t type = 1;
  uint32_t data_block = 512;
  uint32_t hash_block = 512;
  std::vector<std::byte> salt;
};

// What an attacker may change, and what it is verified by. A value.
struct HashImage {
  std::vector<std::byte> bytes;
  std::vector<std::byte> root;
  // Where each level begins, and of how many hash blocks it is, from the data up.
  struct Level {
    uint64_t offset = 0;
    uint64_t blocks = 0;
  };
  std::vector<Level> levels;
};

inline std::vector<std::byte> RandomBytes(RandomSource& random, std::size_t size) {
  std::vector<std::byte> bytes(size);
  random.FillNonZero(bytes);
  return bytes;
}

inline void Append(std::vector<std::byte>& to, Bytes bytes) {
  to.insert(to.end(), bytes.begin(), bytes.end());
}

inline std::vector<std::byte> DigestOf(const HashImageOptions& options, Bytes block) {
  std::vector<std::byte> hashed;
  if (options.type == 1) Append(hashed, options.salt);
  Append(hashed, block);
  if (options.type == 0) Append(hashed, options.salt);
  std::vector<std::byte> digest(EVP_MAX_MD_SIZE);
  unsigned length = 0;
  CHECK_EQ(EVP_Digest(hashed.data(), hashed.size(), reinterpret_cast<unsigned char*>(digest.data()),
                      &length, EVP_get_digestbyname(options.algorithm.c_str()), nullptr),
           1);
  digest.resize(length);
  return digest;
}

inline std::vector<std::byte> SuperblockOf(const HashImageOptions& options, uint64_t data_blocks) {
  std::vector<std::byte> block(512);
  const auto put = [&block](std::size_t at, auto value) {
    std::memcpy(block.data() + at, &value, sizeof(value));
  };
  std::memcpy(block.data(), "verity", 6);
  put(8, uint32_t{1});
  put(12, options.type);
  for (std::size_t i = 16; i < 32; ++i) block[i] = std::byte{0xd0};  // UUID
  std::ranges::copy(AsBytes(options.algorithm), block.begin() + 32);
  put(64, options.data_block);
  put(68, options.hash_block);
  put(72, data_blocks);
  put(80, static_cast<uint16_t>(options.salt.size()));
  std::ranges::copy(options.salt, block.begin() + 88);
  return block;
}

// REQUIRES: `data` is whole data blocks, at least one.
inline HashImage MakeHashImage(const HashImageOptions& options, Bytes data) {
  std::vector<std::vector<std::byte>> levels;  // from the data up
  std::vector<std::byte> digests;
  uint64_t below = data.size() / options.data_block;
  for (uint64_t i = 0; i < below; ++i) {
    Append(digests, DigestOf(options, data.subspan(i * options.data_block, options.data_block)));
  }
  while (below > 1) {
    const std::size_t each = digests.size() / below;
    CHECK_EQ(options.hash_block % each, 0u);  // else there would be padding in the blocks
    digests.resize((digests.size() + options.hash_block - 1) / options.hash_block *
                   options.hash_block);
    levels.push_back(std::move(digests));
    digests.clear();
    const std::vector<std::byte>& level = levels.back();
    below = level.size() / options.hash_block;
    for (uint64_t i = 0; i < below; ++i) {
      Append(digests,
             DigestOf(options, Bytes(level).subspan(i * options.hash_block, options.hash_block)));
    }
  }
  HashImage image{.bytes = SuperblockOf(options, data.size() / options.data_block),
                  .root = digests};
  image.bytes.resize(options.hash_block);
  for (auto level = levels.rbegin(); level != levels.rend(); ++level) {
    image.levels.push_back({image.bytes.size(), level->size() / options.hash_block});
    Append(image.bytes, *level);
  }
  std::ranges::reverse(image.levels);
  return image;
}

// What a test need not care about is at random; `most_block`: bytes of a block at most.
inline HashImageOptions RandomHashImageOptions(RandomSource& random, uint32_t most_block) {
  HashImageOptions options;
  if (random.OneIn(2)) options.algorithm = "sha512";
  options.type = random.OneIn(3) ? 0 : 1;
  options.data_block = static_cast<uint32_t>(random.PowerOfTwo(512, most_block));
  options.hash_block = static_cast<uint32_t>(random.PowerOfTwo(512, most_block));
  constexpr std::size_t kSalts[] = {0, 1, 32, 255, 256};
  options.salt = RandomBytes(random, random.Pick(kSalts));
  return options;
}

}  // namespace gabion::test
