// Fuzz target: the superblock of a hash image, and where it says that the tree is. The input is the
// start of the image; the image ends with it, and once more it is the start of a large one.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/base/align.h"
#include "engine/base/check.h"
#include "engine/filters/verity/hash_tree.h"

namespace gabion::verity {
namespace {

constexpr ByteCount kLargeImage{uint64_t{1} << 62};

// What whoever reads by the tree relies on.
void CheckPromises(const HashTree& tree, ByteCount image_size) {
  const TreeShape& shape = tree.shape();
  for (const uint32_t bytes : {shape.data_block_bytes, shape.hash_block_bytes}) {
    CHECK(bytes >= kSmallestBlock && bytes <= kLargestBlock && IsPowerOfTwo(bytes));
  }
  CHECK(shape.salt.size() <= kMostSalt);
  CHECK_EQ(tree.data_size().value / shape.data_block_bytes, shape.data_blocks);
  CHECK(static_cast<int64_t>(tree.data_size().value) > 0);
  CHECK_EQ(tree.levels() == 0, shape.data_blocks == 1);
  uint64_t below = shape.data_blocks;
  for (std::size_t level = 0; level < tree.levels(); ++level) {
    const uint64_t blocks = tree.BlocksOf(level);
    CHECK_EQ(tree.HolderOf(0), 0u);
    CHECK_EQ(tree.HolderOf(below - 1), blocks - 1);
    CHECK(FitsWithin(tree.BlockAt(level, blocks - 1), image_size));
    const bool is_top = level + 1 == tree.levels();
    CHECK_EQ(is_top, blocks == 1);
    const uint64_t before = is_top
                                ? shape.hash_block_bytes
                                : tree.BlockAt(level + 1, tree.BlocksOf(level + 1) - 1).end().value;
    CHECK_EQ(tree.BlockAt(level, 0).offset.value, before);
    const std::vector<std::byte> block(shape.hash_block_bytes);
    const Digest digest = tree.DigestIn(block, below - 1);
    CHECK(std::all_of(digest.begin(), digest.end(), [](std::byte b) { return b == std::byte{0}; }));
    below = blocks;
  }
}

void Try(Bytes start, ByteCount image_size) {
  const absl::StatusOr<HashTree> tree = HashTree::Decode(start, image_size);
  if (tree.ok()) return CheckPromises(*tree, image_size);
  CHECK(absl::IsInvalidArgument(tree.status()) || absl::IsDataLoss(tree.status()));
  CHECK(!tree.status().message().empty());
}

}  // namespace
}  // namespace gabion::verity

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace gabion;  // NOLINT: the entry point is outside of the namespace
  const Bytes start = std::as_bytes(std::span(data, size));
  verity::Try(start, ByteCount{size});
  verity::Try(start, verity::kLargeImage);
  return 0;
}
