#include "engine/filters/manifest.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <vector>

#include "engine/base/bytes.h"
#include "tests/engine/filters/disk_model.h"

namespace gabion::filters {
namespace {

using test::CounterOf;
using test::DiskModel;
using test::FilterBase;
using test::MemoryNode;
using test::NodeCall;
using test::RandomSource;

constexpr uint64_t kB = 512;
constexpr uint64_t kSize = 10 * kB + 100;

// FNV-1a of 64 bits: each byte counts, and its place.
class TestHash final : public BlockHash {
 public:
  explicit TestHash(runtime::ReadyQueue& ready) : ready_(ready) {}
  std::size_t digest_bytes() const override { return 8; }
  Task<void> Hash(Bytes block, MutableBytes digest) override {
    co_await ready_.Yield();
    StoreBe64(digest.data(), Compute(block));
  }
  static uint64_t Compute(Bytes block) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (const std::byte byte : block) {
      hash = (hash ^ static_cast<uint64_t>(byte)) * 0x100000001b3u;
    }
    return hash;
  }

 private:
  runtime::ReadyQueue& ready_;
};

Manifest ManifestOf(Bytes content, uint32_t block_size) {
  Manifest manifest{.size = ByteCount{content.size()}, .block_size = block_size};
  while (!content.empty()) {
    const Bytes block = content.first(std::min<uint64_t>(content.size(), block_size));
    std::byte digest[8];
    StoreBe64(digest, TestHash::Compute(block));
    manifest.digests.insert(manifest.digests.end(), digest, digest + 8);
    content = content.subspan(block.size());
  }
  return manifest;
}

class ManifestTest : public testing::Test {
 protected:
  ManifestTest() {
    RandomSource random(1);
    random.FillNonZero(child_.content());
    manifest_ = ManifestOf(child_.content(), kB);
    check_ = NewManifestCheck(child_, base_.environment(), "sums", manifest_, hash_, {});
  }

  absl::Status Read(ByteRange range) {
    std::vector<std::byte> bytes(range.length.value);
    return base_.Finish(check_->Read(range, bytes));
  }
  std::vector<std::byte> Content(ByteRange range) {
    const std::byte* const first = child_.content().data() + range.offset.value;
    return {first, first + range.length.value};
  }

  FilterBase base_;
  MemoryNode child_{{.size = kSize}};
  TestHash hash_{base_.ready};
  Manifest manifest_;
  std::unique_ptr<LiveFilter<ManifestOptions>> check_;
};

TEST_F(ManifestTest, ReadsOfWholeBlocksAndPartsAreChecked) {
  for (const ByteRange& range : {Range(0, kSize), Range(kB, kB), Range(3, 10),
                                 Range(kB - 1, 2 * kB + 2), Range(10 * kB + 99, 1)}) {
    EXPECT_EQ(base_.Read(*check_, range), Content(range)) << range.offset.value;
  }
  EXPECT_EQ(CounterOf(*check_, "checked_bytes"), kSize + kB + kB + 4 * kB + 100);
  EXPECT_EQ(CounterOf(*check_, "mismatches"), 0u);
}

TEST_F(ManifestTest, AByteThatHasChangedFailsEachReadOfItsBlock) {
  child_.content()[3 * kB + 7] ^= std::byte{1};
  child_.content()[10 * kB + 50] ^= std::byte{1};
  for (const ByteRange& range :
       {Range(3 * kB, 1), Range(3 * kB, kB), Range(2 * kB, 3 * kB), Range(10 * kB, 1)}) {
    EXPECT_EQ(Read(range).code(), absl::StatusCode::kDataLoss) << range.offset.value;
  }
  EXPECT_EQ(Read(Range(0, kSize)).message(),
            "exports/a, filter 'f': the 512 bytes at 1536 have another checksum than the manifest "
            "says");
  EXPECT_TRUE(Read(Range(0, 3 * kB)).ok());
  EXPECT_TRUE(Read(Range(4 * kB, 6 * kB)).ok());
  EXPECT_EQ(CounterOf(*check_, "mismatches"), 5u);
}

TEST_F(ManifestTest, WhatIsOnlyReportedDoesNotFail) {
  child_.content()[7] ^= std::byte{1};
  check_->Configure({.report_only = true});
  EXPECT_EQ(base_.Read(*check_, Range(5, 10)), Content(Range(5, 10)));
  EXPECT_EQ(base_.Read(*check_, Range(5, 10)), Content(Range(5, 10)));
  EXPECT_EQ(base_.logger.lines.size(), 1u);
  base_.clock.Advance(std::chrono::seconds(10));
  EXPECT_TRUE(Read(Range(0, kB)).ok());
  EXPECT_EQ(base_.logger.lines.size(), 2u);
}

TEST_F(ManifestTest, ErrorsOfTheChildPass) {
  child_.SetFault([](NodeCall, ByteRange) { return absl::UnavailableError("away"); });
  EXPECT_EQ(Read(Range(0, kB)).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(Read(Range(3, 1)).code(), absl::StatusCode::kUnavailable);
}

TEST_F(ManifestTest, CannotBeWrittenToNorGrow) {
  EXPECT_FALSE(check_->limits().writable);
  EXPECT_EQ(check_->limits().preferred, ByteCount{kB});
  EXPECT_EQ(check_->limits().preferred_from, "sums");
  EXPECT_EQ(base_.Finish(check_->Resize(ByteCount{1})).code(), absl::StatusCode::kUnimplemented);
  EXPECT_TRUE(base_.Finish(child_.Resize(ByteCount{2 * kSize})).ok());
  check_->Refresh();
  EXPECT_EQ(check_->limits().size, ByteCount{kSize});
  EXPECT_TRUE(Read(Range(10 * kB, 100)).ok()) << "the last block is as short as it was";
}

TEST_F(ManifestTest, AnotherFilterGoesOnWithTheCounts) {
  EXPECT_TRUE(Read(Range(0, kB)).ok());
  const auto next = NewManifestCheck(child_, base_.environment(), "sums", manifest_, hash_, {});
  next->TakeOver(*check_);
  EXPECT_EQ(CounterOf(*next, "checked_bytes"), kB);
}

TEST(ManifestPropertyTest, ConcurrentReadsAreRightAndCheckedAsAWhole) {
  RandomSource random;
  for (int round = 0; round < 60; ++round) {
    FilterBase base;
    base.ready.SetChooser(&RandomSource::Choose, &random);
    MemoryNode child({.size = random.Between(1, 40000), .layers = 3});
    FillAtRandom(child, random);
    const auto block = static_cast<uint32_t>(random.PowerOfTwo(512, 8192));
    const Manifest manifest = ManifestOf(child.content(), block);
    child.SetDeferred(base.ready, random);
    TestHash hash(base.ready);
    const auto check = NewManifestCheck(child, base.environment(), "sums", manifest, hash, {});
    DiskModel model(base, random, *check, child.content(),
                    {.window = uint64_t{3} * block, .writes = false});
    for (int wave = 0; wave < 10; ++wave) ASSERT_NO_FATAL_FAILURE(model.RunWave());
    EXPECT_EQ(CounterOf(*check, "mismatches"), 0u);
    const uint64_t broken = random.Below(child.content().size());
    child.content()[broken] ^= std::byte{0x10};
    for (int i = 0; i < 20; ++i) {
      const ByteRange range = random.RangeWithin(child.content().size());
      std::vector<std::byte> bytes(range.length.value);
      const absl::Status status = base.Finish(check->Read(range, bytes));
      const ByteRange touched = AlignOutward(range, ByteCount{block}, child.limits().size);
      ASSERT_EQ(status.ok(), !Overlaps(touched, Range(broken, 1)));
    }
  }
}

}  // namespace
}  // namespace gabion::filters
