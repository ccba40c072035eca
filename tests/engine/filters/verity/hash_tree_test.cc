#include "engine/filters/verity/hash_tree.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "engine/base/text.h"
#include "engine/filters/verity/hasher.h"
#include "tests/engine/filters/verity/hash_image.h"

namespace gabion::verity {
namespace {

using absl::StatusCode;
using test::HashImage;
using test::HashImageOptions;
using test::RandomSource;

constexpr ByteCount kHuge{std::numeric_limits<uint64_t>::max()};

bool SameShape(const TreeShape& a, const TreeShape& b) {
  return a.algorithm == b.algorithm && a.salt_first == b.salt_first &&
         a.data_block_bytes == b.data_block_bytes && a.hash_block_bytes == b.hash_block_bytes &&
         a.data_blocks == b.data_blocks && a.salt == b.salt;
}

TEST(HashTreeTest, ASuperblockSaysWhatWasWrittenIntoIt) {
  RandomSource random;
  for (int round = 0; round < 1000; ++round) {
    const HashImageOptions options = test::RandomHashImageOptions(random, kLargestBlock);
    const uint64_t blocks = random.Between(1, uint64_t{1} << random.Between(1, 43));
    const auto tree = HashTree::Decode(test::SuperblockOf(options, blocks), kHuge);
    ASSERT_TRUE(tree.ok()) << tree.status();
    EXPECT_EQ(NameOf(tree->shape().algorithm), options.algorithm);
    EXPECT_EQ(tree->shape().salt_first, options.type == 1);
    EXPECT_EQ(tree->shape().data_block_bytes, options.data_block);
    EXPECT_EQ(tree->shape().hash_block_bytes, options.hash_block);
    EXPECT_EQ(tree->shape().data_blocks, blocks);
    EXPECT_EQ(tree->shape().salt, options.salt);
    EXPECT_EQ(tree->data_size().value, blocks * options.data_block);
  }
}

TEST(HashTreeTest, WhatIsTooShortHasNoSuperblock) {
  const std::vector<std::byte> whole = test::SuperblockOf({}, 1);
  EXPECT_TRUE(HashTree::Decode(whole, ByteCount{512}).ok());
  for (std::size_t size = 0; size < whole.size(); ++size) {
    const auto tree = HashTree::Decode(Bytes(whole).first(size), ByteCount{size});
    EXPECT_EQ(tree.status().code(), StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(HashTree::Decode(Bytes(whole).first(7), ByteCount{7}).status().message(),
            "the hash image has 7 bytes, less than the 512 of a superblock");
}

struct BadField {
  std::size_t at;
  uint64_t value;
  std::size_t bytes;
  StatusCode code;
  std::string_view message;
};

constexpr std::string_view kDamaged = "the superblock of the hash image is damaged: ";
constexpr BadField kBadFields[] = {
    {0, 0x797469726576, 4, StatusCode::kOk, ""},  // as it is
    {0, 'V', 1, StatusCode::kInvalidArgument, "the hash image has no superblock of dm-verity"},
    {7, 1, 1, StatusCode::kInvalidArgument, "the hash image has no superblock of dm-verity"},
    {8, 0, 4, StatusCode::kInvalidArgument, "the hash image has a superblock of version 0, not 1"},
    {8, 0xffffffff, 4, StatusCode::kInvalidArgument,
     "the hash image has a superblock of version 4294967295, not 1"},
    {12, 2, 4, StatusCode::kInvalidArgument, "the hash image has hash type 2, not 0 or 1"},
    {32, 0, 1, StatusCode::kInvalidArgument,
     "the hash image has digests by '', and Gabion knows sha256 and sha512"},
    {35, 0x31, 8, StatusCode::kInvalidArgument,
     "the hash image has digests by 'sha1', and Gabion knows sha256 and sha512"},
    {36, 0x0a, 1, StatusCode::kInvalidArgument,
     "the hash image has digests by 'sha2\\n6', and Gabion knows sha256 and sha512"},
    {32, 'S', 1, StatusCode::kInvalidArgument,
     "the hash image has digests by 'Sha256', and Gabion knows sha256 and sha512"},
    {64, 0, 4, StatusCode::kDataLoss,
     "a data block of 0 bytes, which is no power of two from 512 to 524288"},
    {64, 256, 4, StatusCode::kDataLoss,
     "a data block of 256 bytes, which is no power of two from 512 to 524288"},
    {64, 1048576, 4, StatusCode::kDataLoss,
     "a data block of 1048576 bytes, which is no power of two from 512 to 524288"},
    {68, 513, 4, StatusCode::kDataLoss,
     "a hash block of 513 bytes, which is no power of two from 512 to 524288"},
    {68, 0xffffffff, 4, StatusCode::kDataLoss,
     "a hash block of 4294967295 bytes, which is no power of two from 512 to 524288"},
    {72, 0, 8, StatusCode::kDataLoss, "0 data blocks of 512 bytes, which make no disk"},
    {72, ~uint64_t{0}, 8, StatusCode::kDataLoss,
     "18446744073709551615 data blocks of 512 bytes, which make no disk"},
    {72, uint64_t{1} << 54, 8, StatusCode::kDataLoss,
     "18014398509481984 data blocks of 512 bytes, which make no disk"},
    {80, 257, 2, StatusCode::kDataLoss, "a salt of 257 bytes; at most 256"},
    {80, 0xffff, 2, StatusCode::kDataLoss, "a salt of 65535 bytes; at most 256"},
};

TEST(HashTreeTest, WhatIsWrongIsNamedWithItsValue) {
  for (const BadField& bad : kBadFields) {
    std::vector<std::byte> superblock = test::SuperblockOf({}, 5);
    std::memcpy(superblock.data() + bad.at, &bad.value, bad.bytes);
    const absl::Status status = HashTree::Decode(superblock, kHuge).status();
    EXPECT_EQ(status.code(), bad.code) << status;
    const bool damaged = bad.code == StatusCode::kDataLoss;
    EXPECT_EQ(status.message(), absl::StrCat(AsAbsl(damaged ? kDamaged : ""), AsAbsl(bad.message)));
  }
}

// Which answers a superblock may get when the bit at `at` is flipped, and its shape is `flipped`.
void CheckFlip(const TreeShape& shape, std::size_t at, const absl::StatusOr<HashTree>& flipped) {
  const StatusCode code = flipped.status().code();
  const bool is_uuid = at >= 16 && at < 32;
  const bool is_behind_name = at >= 39 && at < 64;  // and behind the zero at its end
  const bool is_behind = at >= 82 && at < 88;
  const bool is_behind_salt = at >= 88 + shape.salt.size();
  if (is_uuid || is_behind_name || is_behind || is_behind_salt) {
    ASSERT_TRUE(flipped.ok()) << at << flipped.status();
    EXPECT_TRUE(SameShape(flipped->shape(), shape)) << at;
  } else if (at < 12 || (at >= 32 && at < 39)) {
    EXPECT_EQ(code, StatusCode::kInvalidArgument) << at;
  } else if (at >= 64 && at < 72) {
    EXPECT_EQ(code, StatusCode::kDataLoss) << at;
  } else if (flipped.ok()) {
    EXPECT_FALSE(SameShape(flipped->shape(), shape)) << at;
  }
}

TEST(HashTreeTest, EveryFlippedBitIsSeenUnlessItMeansNothing) {
  HashImageOptions options;
  options.salt = std::vector<std::byte>(20, std::byte{0xa5});
  const std::vector<std::byte> whole = test::SuperblockOf(options, 1000);
  const auto tree = HashTree::Decode(whole, kHuge);
  ASSERT_TRUE(tree.ok());
  for (std::size_t bit = 0; bit < whole.size() * 8; ++bit) {
    std::vector<std::byte> flipped = whole;
    flipped[bit / 8] ^= std::byte{1} << (bit % 8);
    CheckFlip(tree->shape(), bit / 8, HashTree::Decode(flipped, kHuge));
    HashTree::Decode(flipped, ByteCount{512}).status().IgnoreError();
  }
}

TEST(HashTreeTest, AnImageThatIsTooShortIsDamaged) {
  RandomSource random;
  const HashImage image = test::MakeHashImage({}, test::RandomBytes(random, 153600));
  const Bytes start = Bytes(image.bytes).first(512);
  EXPECT_TRUE(HashTree::Decode(start, ByteCount{image.bytes.size()}).ok());
  EXPECT_TRUE(HashTree::Decode(start, ByteCount{image.bytes.size() + 1}).ok());
  for (const uint64_t missing : {1, 511, 512, 5000}) {
    const auto tree = HashTree::Decode(start, ByteCount{image.bytes.size() - missing});
    EXPECT_EQ(tree.status().code(), StatusCode::kDataLoss);
  }
  EXPECT_EQ(HashTree::Decode(start, ByteCount{11775}).status().message(),
            "the hash tree of 300 data blocks has 22 hash blocks of 512 bytes behind the "
            "superblock's, and the image ends at byte 11775");
}

TEST(HashTreeTest, OneDataBlockNeedsNoTree) {
  const auto tree = HashTree::Decode(
      test::SuperblockOf({.data_block = kLargestBlock, .hash_block = 4096}, 1), ByteCount{512});
  ASSERT_TRUE(tree.ok()) << tree.status();
  EXPECT_EQ(tree->levels(), 0u);
  EXPECT_EQ(tree->data_size(), ByteCount{kLargestBlock});
}

TEST(HashTreeTest, TheLargestDisksOverflowNothing) {
  for (const uint32_t data_block : {kSmallestBlock, kLargestBlock}) {
    for (const uint32_t hash_block : {kSmallestBlock, kLargestBlock}) {
      const uint64_t blocks = std::numeric_limits<int64_t>::max() / data_block;
      const auto superblock = test::SuperblockOf(
          {.algorithm = "sha512", .data_block = data_block, .hash_block = hash_block}, blocks);
      const auto tree = HashTree::Decode(superblock, kHuge);
      EXPECT_EQ(HashTree::Decode(superblock, ByteCount{kGiB}).status().code(),
                StatusCode::kDataLoss);
      // A tree of 2^54 / 8191 blocks of 512 KiB is longer than any image.
      if (!tree.ok()) continue;
      EXPECT_EQ(tree->HolderOf(blocks - 1), tree->BlocksOf(0) - 1);
      EXPECT_EQ(tree->BlocksOf(tree->levels() - 1), 1u);
      EXPECT_EQ(tree->BlockAt(tree->levels() - 1, 0).offset.value, hash_block);
      for (std::size_t level = 1; level < tree->levels(); ++level) {
        EXPECT_EQ(tree->HolderOf(tree->BlocksOf(level - 1) - 1), tree->BlocksOf(level) - 1);
        EXPECT_EQ(tree->BlockAt(level, tree->BlocksOf(level) - 1).end(),
                  tree->BlockAt(level - 1, 0).offset);
      }
    }
  }
}

// What veritysetup 2.6.1 says of 102,400 bytes, of which byte n is n modulo 251.
struct KnownRoot {
  HashImageOptions options;
  std::string_view root;
};

const KnownRoot kKnownRoots[] = {
    {{.data_block = 1024}, "425b37e595f675a33d99e50c21a8efef3e1fe7e17e46f1a138d15728fb290f49"},
    {{.type = 0, .hash_block = 1024, .salt = {std::byte{0xc0}, std::byte{0xff}, std::byte{0xee}}},
     "98e1ede0f4fdfc7498aa80505730d5bfa8d3762d1cf3b8f166d838f17b7a1cd7"},
    {{.algorithm = "sha512",
      .data_block = 4096,
      .hash_block = 4096,
      .salt = std::vector<std::byte>(32, std::byte{0xab})},
     "3e918d3ec7ff1ca0f27454a0f9984d504da556722fe56fbd0b80f33e7e04346f"
     "c21ed42c98de8fb7fe280d0b4dc8961fe110129ee58996dc3320907a415ca34d"},
    {{.algorithm = "sha512",
      .type = 0,
      .data_block = 1024,
      .salt = std::vector<std::byte>(256, std::byte{1})},
     "b71fa51b6105e7fa0d122a3ce3470d4207c5ce966dc8c7c246cb8c47490851da"
     "e250392cba798c7fcaf4edb5d15e34227607ea6f36f97c65518bd9d8d31c70e3"},
    {{.salt = std::vector<std::byte>(256, std::byte{0x5a})},
     "8323502b37cf8236b668c5698d989ee813eea0e8805a4c0274f683e5537868c5"},
};

TEST(HashImageTest, RootsAreThoseOfVeritysetup) {
  std::vector<std::byte> data(102400);
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = std::byte{static_cast<uint8_t>(i % 251)};
  for (const KnownRoot& known : kKnownRoots) {
    const HashImage image = test::MakeHashImage(known.options, data);
    EXPECT_EQ(absl::BytesToHexString(AsAbsl(AsText(image.root))), AsAbsl(known.root));
  }
}

// The digest of a data block, by every level up to the root.
void CheckPath(const HashTree& tree, const HashImage& image, Bytes data, uint64_t block) {
  Hasher hasher(tree);
  const uint64_t size = tree.shape().data_block_bytes;
  absl::StatusOr<Digest> digest = hasher.Hash(data.subspan(block * size, size));
  for (std::size_t level = 0; level < tree.levels(); ++level) {
    const uint64_t holder = tree.HolderOf(block);
    ASSERT_LT(holder, tree.BlocksOf(level));
    const ByteRange place = tree.BlockAt(level, holder);
    ASSERT_LE(place.end().value, image.bytes.size());
    const Bytes bytes = Bytes(image.bytes).subspan(place.offset.value, place.length.value);
    ASSERT_EQ(tree.DigestIn(bytes, block), *digest) << "level " << level;
    digest = hasher.Hash(bytes);
    block = holder;
  }
  EXPECT_TRUE(std::equal(image.root.begin(), image.root.end(), digest->begin()));
}

TEST(HashTreePropertyTest, EveryBlockLeadsToTheRoot) {
  RandomSource random;
  for (int round = 0; round < 150; ++round) {
    const HashImageOptions options = test::RandomHashImageOptions(random, 4096);
    const uint64_t blocks = random.Between(1, random.PowerOfTwo(1, 1024));
    const std::vector<std::byte> data = test::RandomBytes(random, blocks * options.data_block);
    const HashImage image = test::MakeHashImage(options, data);
    const auto tree =
        HashTree::Decode(Bytes(image.bytes).first(512), ByteCount{image.bytes.size()});
    ASSERT_TRUE(tree.ok()) << tree.status();
    ASSERT_EQ(tree->levels(), image.levels.size());
    for (std::size_t level = 0; level < tree->levels(); ++level) {
      EXPECT_EQ(tree->BlocksOf(level), image.levels[level].blocks);
      EXPECT_EQ(tree->BlockAt(level, 0).offset.value, image.levels[level].offset);
    }
    for (uint64_t block = 0; block < blocks; block += random.Between(1, 20)) {
      ASSERT_NO_FATAL_FAILURE(CheckPath(*tree, image, data, block));
    }
  }
}

TEST(HasherTest, ComparesThoseOfWhichSomethingIsExpected) {
  const auto tree = HashTree::Decode(test::SuperblockOf({}, 4), kHuge);
  ASSERT_TRUE(tree.ok());
  RandomSource random;
  std::vector<std::byte> bytes = test::RandomBytes(random, 2048);
  Hasher hasher(*tree);
  std::vector<std::optional<Digest>> expected;
  for (std::size_t i = 0; i < 4; ++i)
    expected.emplace_back(*hasher.Hash(Bytes(bytes).subspan(i * 512, 512)));
  EXPECT_EQ(hasher.Compare(bytes, expected)->count, 0u);
  for (const std::size_t at : {600, 1100, 1600}) bytes[at] ^= std::byte{1};
  EXPECT_EQ(hasher.Compare(bytes, expected)->count, 3u);
  EXPECT_EQ(hasher.Compare(bytes, expected)->first, 1u);
  expected[1].reset();
  EXPECT_EQ(hasher.Compare(bytes, expected)->count, 2u);
  EXPECT_EQ(hasher.Compare(bytes, expected)->first, 2u);
}

}  // namespace
}  // namespace gabion::verity
