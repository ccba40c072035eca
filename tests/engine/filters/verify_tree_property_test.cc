// Damage at random places is found by the reads that it concerns, and by no others.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "engine/base/align.h"
#include "tests/engine/filters/disk_model.h"
#include "tests/engine/filters/verify_tree_fixture.h"

namespace gabion::filters {
namespace {

using absl::StatusCode;
using test::CounterOf;
using test::HashImageOptions;
using test::RandomSource;

TEST(VerifyTreePropertyTest, EveryFlippedBitIsFoundByReadsOfItsBlock) {
  constexpr uint64_t kBytes = 1536;
  RandomSource random;
  HashImageOptions options = test::RandomHashImageOptions(random, 1024);
  options.data_block = 512;
  TreeStand stand(options, test::RandomBytes(random, kBytes));
  const auto filter = stand.Make();
  for (uint64_t bit = 0; bit < kBytes * 8; ++bit) {
    const uint64_t block = bit / 4096;
    stand.child.content()[bit / 8] ^= std::byte{1} << (bit % 8);
    for (uint64_t other = 0; other < 3; ++other) {
      ByteRange range = random.RangeWithin(512);
      range.offset.value += other * 512;
      const absl::Status status = stand.Read(*filter, range);
      ASSERT_EQ(status.code(), other == block ? StatusCode::kDataLoss : StatusCode::kOk) << bit;
    }
    stand.child.content()[bit / 8] ^= std::byte{1} << (bit % 8);
  }
  EXPECT_EQ(CounterOf(*filter, "mismatches"), kBytes * 8);
}

TEST(VerifyTreePropertyTest, EveryFlippedBitOfTheTreeIsFoundByReadsBelowIt) {
  RandomSource random;
  for (const char* const algorithm : {"sha256", "sha512"}) {
    const uint64_t blocks = random.Between(65, 150);
    TreeStand stand({.algorithm = algorithm}, test::RandomBytes(random, blocks * 512));
    const uint64_t each = 512 / stand.image.root.size();
    uint64_t under = each;
    for (const test::HashImage::Level& level : stand.image.levels) {
      for (uint64_t bit = 0; bit < level.blocks * 4096; bit += random.Between(1, 40)) {
        std::byte& flipped = stand.hashes.content()[level.offset + bit / 8];
        flipped ^= std::byte{1} << (bit % 8);
        const auto filter = stand.Make();
        const uint64_t first = bit / 4096 * under;
        const uint64_t below = random.Between(first, std::min(blocks, first + under) - 1);
        ASSERT_EQ(stand.Read(*filter, Range(below * 512 + random.Below(512), 1)).code(),
                  StatusCode::kDataLoss);
        const uint64_t any = random.Below(blocks);
        ASSERT_EQ(stand.Read(*filter, Range(any * 512, 512)).ok(), any / under != bit / 4096);
        flipped ^= std::byte{1} << (bit % 8);
      }
      under *= each;
    }
  }
}

// A disk of a few MiB, parts of which are damaged, and reads of it at once.
class DamagedDisk {
 public:
  DamagedDisk(RandomSource& random, const HashImageOptions& options, uint64_t blocks,
              VerifyOptions verify)
      : random_(random),
        block_(options.data_block),
        stand_(options, test::RandomBytes(random, blocks * options.data_block), random.Below(600)),
        damaged_(blocks),
        reports_(verify.on_mismatch == VerifyOptions::OnMismatch::kReport) {
    for (uint64_t n = random.Below(5); n > 0; --n) DamageData(random.Below(blocks));
    if (!stand_.image.levels.empty() && random.OneIn(3)) DamageTree();
    filter_ = stand_.Make(verify);
  }

  void SetDeferred() {
    stand_.reactor.ready().SetChooser(&RandomSource::Choose, &random_);
    stand_.child.SetDeferred(stand_.reactor.ready(), random_);
    stand_.hashes.SetDeferred(stand_.reactor.ready(), random_);
  }

  void RunWave(uint64_t most) {
    std::vector<Task<void>> tasks;
    for (uint64_t n = random_.Between(1, 8); n > 0; --n) {
      ByteRange range = random_.RangeWithin(damaged_.size() * block_);
      range.length.value = std::min(range.length.value, random_.Between(1, most));
      if (random_.OneIn(2)) {
        range = AlignOutward(range, ByteCount{block_}, filter_->limits().size);
      }
      tasks.push_back(Read(range));
      if (random_.OneIn(3)) stand_.reactor.ready().RunOnce();
    }
    for (Task<void>& task : tasks) test::Finish(stand_.reactor, std::move(task));
    EXPECT_EQ(stand_.child.in_flight(), 0);
    EXPECT_EQ(stand_.hashes.in_flight(), 0);
  }

 private:
  void DamageData(uint64_t block) {
    stand_.child.content()[block * block_ + random_.Below(block_)] ^= std::byte{0x80};
    damaged_[block] = true;
  }
  void DamageTree() {
    const auto& levels = stand_.image.levels;
    const std::size_t hash_block = stand_.image.bytes.size() - levels[0].offset;
    const uint64_t size = hash_block / levels[0].blocks;
    const std::size_t level = random_.Below(levels.size());
    const uint64_t block = random_.Below(levels[level].blocks);
    stand_.hashes.content()[levels[level].offset + block * size + random_.Below(size)] ^=
        std::byte{4};
    uint64_t under = 1;
    for (std::size_t i = 0; i <= level; ++i) under *= size / stand_.image.root.size();
    const uint64_t end = std::min<uint64_t>(damaged_.size(), (block + 1) * under);
    std::fill(damaged_.begin() + static_cast<std::ptrdiff_t>(block * under),
              damaged_.begin() + static_cast<std::ptrdiff_t>(end), true);
  }

  Task<void> Read(ByteRange range) {
    std::vector<std::byte> bytes(range.length.value, std::byte{0});
    const absl::Status status = co_await filter_->Read(range, bytes);
    const auto first = damaged_.begin() + static_cast<std::ptrdiff_t>(range.offset.value / block_);
    const auto end =
        damaged_.begin() + static_cast<std::ptrdiff_t>((range.end().value - 1) / block_ + 1);
    const bool is_damaged = std::find(first, end, true) != end;
    const bool fails = is_damaged && !reports_;
    EXPECT_EQ(status.code(), fails ? StatusCode::kDataLoss : StatusCode::kOk) << status;
    EXPECT_TRUE(fails || test::HasAt(stand_.child.content(), range.offset.value, bytes));
  }

  RandomSource& random_;
  const uint64_t block_;
  TreeStand stand_;
  std::vector<bool> damaged_;  // data blocks that must not be shown
  const bool reports_;
  std::unique_ptr<LiveFilter<VerifyOptions>> filter_;
};

VerifyOptions RandomVerifyOptions(RandomSource& random) {
  if (random.OneIn(4)) return {.on_mismatch = VerifyOptions::OnMismatch::kReport};
  return {};
}

TEST(VerifyTreePropertyTest, SmallReadsAtOnceGiveNothingThatIsDamaged) {
  RandomSource random;
  for (int round = 0; round < 60; ++round) {
    const HashImageOptions options = test::RandomHashImageOptions(random, 2048);
    const uint64_t blocks = random.Between(1, random.PowerOfTwo(1, 256));
    DamagedDisk disk(random, options, blocks, RandomVerifyOptions(random));
    disk.SetDeferred();
    for (int wave = 0; wave < 10; ++wave) disk.RunWave(8192);
  }
}

TEST(VerifyTreePropertyTest, LongReadsAtOnceGiveNothingThatIsDamaged) {
  RandomSource random;
  for (int round = 0; round < 8; ++round) {
    const HashImageOptions options = test::RandomHashImageOptions(random, 524288);
    const uint64_t blocks = std::max<uint64_t>(1, 3 * kMiB / options.data_block) + random.Below(5);
    DamagedDisk disk(random, options, blocks, RandomVerifyOptions(random));
    if (random.OneIn(2)) disk.SetDeferred();
    for (int wave = 0; wave < 4; ++wave) disk.RunWave(3 * kMiB);
  }
}

}  // namespace
}  // namespace gabion::filters
