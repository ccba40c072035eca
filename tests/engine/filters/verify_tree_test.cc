#include "engine/filters/verify_tree.h"

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/text.h"
#include "engine/filters/verify.h"
#include "tests/engine/filters/disk_model.h"
#include "tests/engine/filters/verify_tree_fixture.h"

namespace gabion::filters {
namespace {

using absl::StatusCode;
using test::CounterOf;
using test::HashImageOptions;
using test::MemoryNode;
using test::NodeCall;
using test::RandomSource;
using OnMismatch = VerifyOptions::OnMismatch;

constexpr uint64_t kBlock = 512;
constexpr VerifyOptions kReport{.on_mismatch = OnMismatch::kReport};

// 100 data blocks; levels of 13, 2 and 1 hash blocks.
HashImageOptions Deep() { return {.algorithm = "sha512"}; }
constexpr uint64_t kBlocks = 100;

class VerifyTreeTest : public testing::Test {
 protected:
  absl::Status Read(Filter& filter, ByteRange range) { return stand_.Read(filter, range); }
  void Flip(MemoryNode& node, uint64_t at) { node.content()[at] ^= std::byte{1}; }
  uint64_t HashReads() const { return stand_.hashes.CountCalls(NodeCall::kRead); }

  RandomSource random_;
  TreeStand stand_{Deep(), test::RandomBytes(random_, kBlocks* kBlock), 700};
};

TEST_F(VerifyTreeTest, ShowsTheDiskThatTheTreeIsOf) {
  test::RichNode rich(stand_.child);
  const auto filter = stand_.TryMake(rich, stand_.image.root);
  ASSERT_TRUE(filter.ok()) << filter.status();
  const block::Limits& limits = (*filter)->limits();
  EXPECT_EQ(limits.size, ByteCount{kBlocks * kBlock});
  EXPECT_FALSE(limits.writable);
  test::ExpectSameLimits(limits, rich.limits(), {"size", "writable"});
  const ByteRange all = Range(0, kBlocks * kBlock);
  test::FilterStand plain;
  EXPECT_EQ(MapOf(plain, **filter, all, 3), MapOf(plain, rich, all, 3));
  EXPECT_TRUE(Read(**filter, all).ok());
  EXPECT_TRUE(stand_.GaveTheChilds(all));
  EXPECT_EQ(CounterOf(**filter, "compared_bytes"), kBlocks * kBlock);
  EXPECT_EQ(CounterOf(**filter, "mismatches"), 0u);
}

TEST_F(VerifyTreeTest, IsReadOnly) {
  const auto filter = stand_.Make();
  EXPECT_EQ(stand_.Finish(filter->Resize(ByteCount{1})).code(), StatusCode::kPermissionDenied);
  EXPECT_TRUE(stand_.Finish(filter->Cache(Range(5, 10))).ok());
  EXPECT_TRUE(stand_.Finish(filter->Flush()).ok());
  EXPECT_TRUE(stand_.Finish(filter->Close()).ok());
  ASSERT_EQ(stand_.child.calls().size(), 3u);
  EXPECT_EQ(stand_.child.calls()[0].call, NodeCall::kCache);
  EXPECT_EQ(stand_.child.calls()[0].range, Range(5, 10));
  EXPECT_EQ(stand_.child.CountCalls(NodeCall::kFlush), 2u);
  EXPECT_EQ(HashReads(), stand_.hashes.calls().size());
}

TEST_F(VerifyTreeTest, WhatDoesNotFitTheTreeIsRefused) {
  std::vector<std::byte> root = stand_.image.root;
  root.pop_back();
  const auto made = stand_.TryMake(stand_.child, root);
  EXPECT_EQ(made.status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(made.status().message(), "the root digest has 63 bytes, and one of sha512 has 64");
  MemoryNode small({.size = kBlocks * kBlock - 1});
  const auto above = stand_.TryMake(small, stand_.image.root);
  EXPECT_EQ(above.status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(above.status().message(),
            "the hash tree is that of a disk of 51200 bytes, and the disk has 51199");
  EXPECT_EQ(stand_.TryMake(small, {}).status().code(), StatusCode::kInvalidArgument);
}

TEST_F(VerifyTreeTest, HashImagesWithoutATreeAreRefused) {
  MemoryNode empty({.size = 0});
  EXPECT_EQ(stand_.Finish(ReadHashTree(empty)).status().code(), StatusCode::kInvalidArgument);
  MemoryNode zeros({.size = 5000});
  EXPECT_EQ(stand_.Finish(ReadHashTree(zeros)).status().code(), StatusCode::kInvalidArgument);
  MemoryNode cut({.size = 4096});
  cut.Put(0, Bytes(stand_.image.bytes).first(4096));
  EXPECT_EQ(stand_.Finish(ReadHashTree(cut)).status().code(), StatusCode::kDataLoss);
  absl::Status error = absl::UnavailableError("gone");
  stand_.hashes.SetFault([&error](NodeCall, ByteRange) { return error; });
  EXPECT_EQ(stand_.Finish(ReadHashTree(stand_.hashes)).status(), error);
}

TEST_F(VerifyTreeTest, ADifferenceFailsTheReadAndNamesTheBlock) {
  const auto filter = stand_.Make();
  Flip(stand_.child, 40 * kBlock + 99);
  const absl::Status status = Read(*filter, Range(39 * kBlock, 3 * kBlock));
  EXPECT_EQ(status.code(), StatusCode::kDataLoss);
  EXPECT_EQ(status.message(),
            "exports/a, filter 'f': data block 40, at byte 20480, does not have the digest that "
            "the hash tree has of it");
  EXPECT_EQ(CounterOf(*filter, "mismatches"), 1u);
  EXPECT_EQ(CounterOf(*filter, "compared_bytes"), 3 * kBlock);
  EXPECT_TRUE(Read(*filter, Range(39 * kBlock, kBlock)).ok());
}

// A message for every level, and what is below a damaged block cannot be read.
TEST_F(VerifyTreeTest, ADamagedTreeFailsWhatIsBelow) {
  const auto& levels = stand_.image.levels;
  ASSERT_EQ(levels.size(), 3u);
  constexpr std::string_view kWhy[] = {"digest that the level above has of it",
                                       "digest that the level above has of it", "root digest"};
  uint64_t under = 8;  // data blocks that a hash block stands for
  for (std::size_t level = 0; level < 3; ++level, under *= 8) {
    for (uint64_t block = 0; block < levels[level].blocks; ++block) {
      const uint64_t at = levels[level].offset + block * kBlock;
      Flip(stand_.hashes, at + random_.Below(kBlock));
      const auto filter = stand_.Make();
      for (uint64_t data = 0; data < kBlocks; ++data) {
        const absl::Status status = Read(*filter, Range(data * kBlock, kBlock));
        ASSERT_EQ(status.ok(), data / under != block) << level << " " << block << " " << data;
        if (status.ok()) continue;
        EXPECT_EQ(status.code(), StatusCode::kDataLoss);
        EXPECT_EQ(status.message(),
                  absl::StrCat("exports/a, filter 'f': block ", block, " on level ", level,
                               " of the hash tree, at byte ", at,
                               " of the hash image, does not have the ", AsAbsl(kWhy[level])));
      }
      stand_.hashes.Put(0, stand_.image.bytes);
    }
  }
}

TEST_F(VerifyTreeTest, ARootThatIsAnotherFailsEverything) {
  for (std::size_t i = 0; i < stand_.image.root.size() * 8; ++i) {
    std::vector<std::byte> root = stand_.image.root;
    root[i / 8] ^= std::byte{1} << (i % 8);
    const auto filter = stand_.TryMake(stand_.child, root);
    ASSERT_TRUE(filter.ok());
    const uint64_t block = random_.Below(kBlocks);
    EXPECT_EQ(Read(**filter, Range(block * kBlock, 1)).code(), StatusCode::kDataLoss);
  }
}

TEST_F(VerifyTreeTest, ASaltThatIsAnotherFailsEverything) {
  stand_.hashes.content()[80] = std::byte{1};  // one zero byte of salt
  const auto filter = stand_.Make();
  for (uint64_t block = 0; block < kBlocks; ++block) {
    EXPECT_EQ(Read(*filter, Range(block * kBlock, 1)).code(), StatusCode::kDataLoss);
  }
}

TEST_F(VerifyTreeTest, ADiskOfOneBlockHasItsDigestAsTheRoot) {
  for (const uint32_t type : {0, 1}) {
    const HashImageOptions options{
        .type = type, .data_block = 4096, .salt = test::RandomBytes(random_, 32)};
    TreeStand stand(options, test::RandomBytes(random_, 4096), 10);
    const auto filter = stand.Make();
    EXPECT_TRUE(stand.Read(*filter, Range(0, 4096)).ok());
    EXPECT_TRUE(stand.GaveTheChilds(Range(0, 4096)));
    Flip(stand.child, random_.Below(4096));
    EXPECT_EQ(stand.Read(*filter, Range(7, 1)).code(), StatusCode::kDataLoss);
    EXPECT_EQ(stand.hashes.CountCalls(NodeCall::kRead), 1u);  // the superblock
  }
}

TEST_F(VerifyTreeTest, ReportsAndGivesTheChildsBytes) {
  const auto filter = stand_.Make(kReport);
  Flip(stand_.child, 3 * kBlock);
  Flip(stand_.child, 5 * kBlock);
  const ByteRange range = Range(kBlock, 6 * kBlock);
  EXPECT_TRUE(Read(*filter, range).ok());
  EXPECT_TRUE(stand_.GaveTheChilds(range));
  EXPECT_TRUE(Read(*filter, range).ok());
  EXPECT_EQ(CounterOf(*filter, "mismatches"), 4u);
  ASSERT_EQ(stand_.logger.lines.size(), 1u);
  EXPECT_NE(stand_.logger.lines[0].message.find("data block 3, at byte 1536,"), std::string::npos);
  stand_.clock.Advance(std::chrono::seconds(10));
  EXPECT_TRUE(Read(*filter, range).ok());
  EXPECT_EQ(stand_.logger.lines.size(), 2u);
  filter->Configure({.on_mismatch = OnMismatch::kFail});
  EXPECT_EQ(Read(*filter, range).code(), StatusCode::kDataLoss);
}

TEST_F(VerifyTreeTest, WhereTheTreeIsDamagedAReportComparesTheRest) {
  Flip(stand_.hashes, stand_.image.levels[0].offset + kBlock);  // data blocks 8 to 15
  const auto filter = stand_.Make(kReport);
  Flip(stand_.child, 10 * kBlock);
  const ByteRange range = Range(0, 24 * kBlock);
  EXPECT_TRUE(Read(*filter, range).ok());
  EXPECT_TRUE(stand_.GaveTheChilds(range));
  EXPECT_EQ(CounterOf(*filter, "mismatches"), 1u);
  EXPECT_EQ(CounterOf(*filter, "compared_bytes"), 16 * kBlock);
  Flip(stand_.child, 16 * kBlock);
  EXPECT_TRUE(Read(*filter, range).ok());
  EXPECT_EQ(CounterOf(*filter, "mismatches"), 3u);
}

TEST_F(VerifyTreeTest, AHashImageThatCannotBeReadFailsTheReadUnlessItIsOnlyReported) {
  const auto filter = stand_.Make();
  stand_.hashes.SetFault([](NodeCall, ByteRange range) {
    return range.offset.value > 600 ? absl::InternalError("broken") : absl::OkStatus();
  });
  const absl::Status status = Read(*filter, Range(0, 1));
  EXPECT_EQ(status, absl::InternalError("exports/a, filter 'f': the hash image: broken"));
  filter->Configure(kReport);
  EXPECT_TRUE(Read(*filter, Range(0, 900)).ok());
  EXPECT_TRUE(stand_.GaveTheChilds(Range(0, 900)));
  EXPECT_EQ(CounterOf(*filter, "reference_failures"), 3u);
  EXPECT_EQ(CounterOf(*filter, "mismatches"), 0u);
  EXPECT_EQ(CounterOf(*filter, "compared_bytes"), 0u);
  stand_.hashes.SetFault(nullptr);
  filter->Configure({});
  EXPECT_TRUE(Read(*filter, Range(0, 1)).ok());
}

TEST_F(VerifyTreeTest, ErrorsOfTheDiskPassAsTheyAre) {
  const absl::Status error = absl::DataLossError("bad sector");
  stand_.child.SetFault([&error](NodeCall call, ByteRange range) {
    return call != NodeCall::kRead || Overlaps(range, Range(30 * kBlock, 1)) ? error
                                                                             : absl::OkStatus();
  });
  for (const VerifyOptions& options : {VerifyOptions{}, kReport}) {
    const auto filter = stand_.Make(options);
    EXPECT_EQ(Read(*filter, Range(0, kBlocks * kBlock)), error);
    EXPECT_EQ(Read(*filter, Range(30 * kBlock + 5, 2)), error);
    EXPECT_TRUE(Read(*filter, Range(31 * kBlock, kBlock)).ok());
    EXPECT_EQ(stand_.Finish(filter->Flush()), error);
    EXPECT_EQ(stand_.Finish(filter->Cache(Range(0, 1))), error);
    EXPECT_EQ(stand_.Finish(filter->BlockStatus(Range(0, 1), 1)).status(), error);
    EXPECT_EQ(CounterOf(*filter, "mismatches"), 0u);
  }
}

TEST_F(VerifyTreeTest, ReadsWholeBlocksAndNoMore) {
  const auto filter = stand_.Make();
  const auto reads = [&](ByteRange range) {
    stand_.child.ClearCalls();
    EXPECT_TRUE(Read(*filter, range).ok());
    EXPECT_TRUE(stand_.GaveTheChilds(range));
    std::vector<ByteRange> ranges;
    for (const test::CallRecord& record : stand_.child.calls()) ranges.push_back(record.range);
    return ranges;
  };
  using Ranges = std::vector<ByteRange>;
  EXPECT_EQ(reads(Range(1024, 1024)), Ranges{Range(1024, 1024)});
  EXPECT_EQ(reads(Range(1025, 1)), Ranges{Range(1024, 512)});
  EXPECT_EQ(reads(Range(1024, 511)), Ranges{Range(1024, 512)});
  EXPECT_EQ(reads(Range(1535, 2)), (Ranges{Range(1024, 512), Range(1536, 512)}));
  EXPECT_EQ(reads(Range(1535, 514)),
            (Ranges{Range(1024, 512), Range(1536, 512), Range(2048, 512)}));
  EXPECT_EQ(reads(Range(51199, 1)), Ranges{Range(50688, 512)});
}

// Pieces of it are hashed by workers, at the same time.
TEST_F(VerifyTreeTest, ALongReadNamesTheFirstBlockThatDiffers) {
  const HashImageOptions options{.data_block = 4096, .hash_block = 4096};
  TreeStand stand(options, test::RandomBytes(random_, 3 * kMiB));
  const auto filter = stand.Make();
  const ByteRange range = Range(1, 3 * kMiB - 2);
  EXPECT_TRUE(stand.Read(*filter, range).ok());
  EXPECT_TRUE(stand.GaveTheChilds(range));
  for (int round = 0; round < 10; ++round) {
    const std::vector<std::byte> before = stand.child.content();
    const uint64_t at = random_.Below(3 * kMiB);
    Flip(stand.child, at);
    for (int more = 0; more < 3; ++more) Flip(stand.child, random_.Between(at, 3 * kMiB - 1));
    if (stand.child.content()[at] == before[at]) Flip(stand.child, at);
    const absl::Status status = stand.Read(*filter, range);
    const std::string named =
        absl::StrCat("data block ", at / 4096, ", at byte ", at / 4096 * 4096);
    EXPECT_NE(status.message().find(named), std::string::npos) << named << ": " << status;
    stand.child.content() = before;
  }
}

TEST_F(VerifyTreeTest, SomePiecesOfALongReadAreReadAtOnce) {
  TreeStand stand({.data_block = 4096}, test::RandomBytes(random_, 3 * kMiB));
  stand.child.SetDeferred(stand.reactor.ready(), random_);
  const auto filter = stand.Make();
  EXPECT_TRUE(stand.Read(*filter, Range(0, 3 * kMiB)).ok());
  EXPECT_TRUE(stand.GaveTheChilds(Range(0, 3 * kMiB)));
  EXPECT_EQ(stand.child.CountCalls(NodeCall::kRead), 12u);
  EXPECT_GE(stand.child.most_in_flight(), 2);
  EXPECT_LE(stand.child.most_in_flight(), 4);
}

TEST_F(VerifyTreeTest, BlocksMayBeLargerThanAPiece) {
  constexpr uint64_t kLarge = verity::kLargestBlock;
  const HashImageOptions options{
      .type = 0, .data_block = kLarge, .hash_block = kLarge, .salt = {std::byte{1}}};
  TreeStand stand(options, test::RandomBytes(random_, 5 * kLarge));
  const auto filter = stand.Make();
  for (const ByteRange& range : {Range(0, 5 * kLarge), Range(kLarge, kLarge),
                                 Range(3 * kLarge - 1, 2), Range(5 * kLarge - 700, 700)}) {
    EXPECT_TRUE(stand.Read(*filter, range).ok());
    EXPECT_TRUE(stand.GaveTheChilds(range));
  }
  Flip(stand.child, 3 * kLarge + random_.Below(kLarge));
  EXPECT_NE(stand.Read(*filter, Range(0, 5 * kLarge)).message().find("data block 3, at"),
            std::string::npos);
  EXPECT_EQ(stand.Read(*filter, Range(3 * kLarge, 1)).code(), StatusCode::kDataLoss);
  EXPECT_TRUE(stand.Read(*filter, Range(4 * kLarge, 1)).ok());
  Flip(stand.hashes, stand.image.levels[0].offset + random_.Below(kLarge));
  EXPECT_EQ(stand.Read(*stand.Make(), Range(0, 1)).code(), StatusCode::kDataLoss);
}

TEST_F(VerifyTreeTest, ABlockOfTheTreeIsReadOnce) {
  const auto filter = stand_.Make();
  stand_.hashes.ClearCalls();
  for (uint64_t at = 0; at < kBlocks * kBlock; at += 100) {
    EXPECT_TRUE(Read(*filter, Range(at, 100)).ok());
  }
  EXPECT_EQ(HashReads(), 16u);
  Flip(stand_.hashes, stand_.image.levels[2].offset);  // nobody looks
  EXPECT_TRUE(Read(*filter, Range(0, kBlocks * kBlock)).ok());
}

TEST_F(VerifyTreeTest, FollowsADiskThatChangesItsSize) {
  const auto filter = stand_.Make();
  const auto resize = [&](uint64_t size) {
    EXPECT_TRUE(stand_.Finish(stand_.child.Resize(ByteCount{size})).ok());
    filter->Refresh();
    return filter->limits().size.value;
  };
  EXPECT_EQ(resize(100'000), kBlocks * kBlock);
  EXPECT_EQ(resize(7 * kBlock + 5), 7 * kBlock);
  EXPECT_TRUE(Read(*filter, Range(0, 7 * kBlock)).ok());
  EXPECT_FALSE(filter->limits().writable);
}

TEST_F(VerifyTreeTest, CountsOnWhereAFilterBeforeHasBeen) {
  const auto first = stand_.Make(kReport);
  Flip(stand_.child, 0);
  EXPECT_TRUE(Read(*first, Range(0, kBlock)).ok());
  const auto second = stand_.Make(kReport);
  second->TakeOver(*first);
  EXPECT_TRUE(Read(*second, Range(0, kBlock)).ok());
  EXPECT_EQ(CounterOf(*second, "mismatches"), 2u);
  EXPECT_EQ(CounterOf(*second, "compared_bytes"), 2 * kBlock);
  EXPECT_EQ(stand_.logger.lines.size(), 1u);
  // One that compares with an image is of the same kind.
  MemoryNode reference({.size = kBlock});
  const auto third = NewVerify(
      stand_.child, {stand_.reactor.ready(), stand_.clock, stand_.logger, "f"}, reference, kReport);
  third->TakeOver(*second);
  EXPECT_EQ(CounterOf(*third, "mismatches"), 2u);
}

}  // namespace
}  // namespace gabion::filters
