#include "engine/nbd/server/read_reply.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "engine/base/align.h"
#include "engine/block/zeros.h"
#include "tests/support/random_source.h"

namespace gabion::nbd {
namespace {

using test::RandomSource;

std::vector<ReadChunk> Plan(uint64_t offset, Bytes data, const ReadReplyOptions& options) {
  std::vector<ReadChunk> chunks{{Range(1, 2), true}};  // what an earlier reply left behind
  PlanReadChunks(ByteOffset{offset}, data, options, chunks);
  return chunks;
}

// 65,536 bytes whose first and third 512 are data: the seed image.
std::vector<std::byte> SeedBytes() {
  std::vector<std::byte> bytes(65536);
  std::fill_n(bytes.begin(), 512, std::byte{1});
  std::fill_n(bytes.begin() + 1024, 512, std::byte{1});
  return bytes;
}

TEST(ReadReplyTest, GoldenChunksOfTheSeedImage) {
  const std::vector<std::byte> bytes = SeedBytes();
  const std::vector<ReadChunk> fine{{Range(0, 1536), false}, {Range(1536, 64000), true}};
  EXPECT_EQ(Plan(0, bytes, {.granule = ByteCount{1}}), fine);
  EXPECT_EQ(Plan(0, bytes, {.granule = ByteCount{512}}), fine);
  const std::vector<ReadChunk> coarse{{Range(0, 4096), false}, {Range(4096, 61440), true}};
  EXPECT_EQ(Plan(0, bytes, {.granule = ByteCount{4096}}), coarse);
}

TEST(ReadReplyTest, DontFragmentIsOneChunkOfData) {
  const std::vector<std::byte> bytes = SeedBytes();
  const std::vector<ReadChunk> one{{Range(0, 65536), false}};
  const ReadReplyOptions options{.maximum_payload = ByteCount{4096}, .one_chunk = true};
  EXPECT_EQ(Plan(0, bytes, options), one);
}

TEST(ReadReplyTest, DataIsCutAtTheMaximumPayloadOnTheGranule) {
  const std::vector<std::byte> bytes(10000, std::byte{1});
  const ReadReplyOptions options{.granule = ByteCount{512}, .maximum_payload = ByteCount{4096}};
  const std::vector<ReadChunk> expected{
      {Range(100, 3996), false}, {Range(4096, 4096), false}, {Range(8192, 1908), false}};
  EXPECT_EQ(Plan(100, bytes, options), expected);
}

TEST(ReadReplyTest, ShortInnerZerosStayData) {
  std::vector<std::byte> bytes(16384, std::byte{1});
  std::fill_n(bytes.begin() + 4096, 3584, std::byte{0});
  EXPECT_EQ(Plan(0, bytes, {}).size(), 1u);
  std::fill_n(bytes.begin() + 4096, 4096, std::byte{0});
  const std::vector<ReadChunk> expected{
      {Range(0, 4096), false}, {Range(4096, 4096), true}, {Range(8192, 8192), false}};
  EXPECT_EQ(Plan(0, bytes, {}), expected);
}

TEST(ReadReplyTest, ZerosAtTheEdgesAreHolesFrom512Bytes) {
  std::vector<std::byte> bytes(2048);
  std::fill_n(bytes.begin() + 512, 1024, std::byte{1});
  const std::vector<ReadChunk> expected{
      {Range(0, 512), true}, {Range(512, 1024), false}, {Range(1536, 512), true}};
  EXPECT_EQ(Plan(0, bytes, {}), expected);
  const std::vector<std::byte> tiny(100);
  EXPECT_EQ(Plan(0, tiny, {}), (std::vector<ReadChunk>{{Range(0, 100), false}}));
}

TEST(ReadReplyTest, NothingReadIsNoChunk) { EXPECT_TRUE(Plan(512, {}, {}).empty()); }

// A disk image with runs of zeros and data of random lengths.
std::vector<std::byte> RandomImage(RandomSource& random, uint64_t size) {
  std::vector<std::byte> image(size);
  for (uint64_t at = 0; at < size;) {
    const uint64_t unit = random.OneIn(3) ? 1 : 512;
    const uint64_t length = std::min(size - at, unit * random.Between(1, 24));
    if (random.OneIn(2)) random.FillNonZero(MutableBytes(image).subspan(at, length));
    at += length;
  }
  return image;
}

// What a client puts together from the chunks (P6), where holes must have been zeros (P2).
void ExpectChunksReadAs(const std::vector<ReadChunk>& chunks, ByteRange range, Bytes data) {
  uint64_t at = range.offset.value;
  for (const ReadChunk& chunk : chunks) {
    ASSERT_EQ(chunk.range.offset.value, at);
    ASSERT_FALSE(chunk.range.empty());
    if (chunk.hole) {
      ASSERT_TRUE(block::IsZero(data.subspan(at - range.offset.value, chunk.range.length.value)));
    }
    at = chunk.range.end().value;
  }
  ASSERT_EQ(at, range.end().value);
}

TEST(ReadReplyPropertyTest, ChunksKeepTheBlockSizesAndTheContent) {
  RandomSource random;
  int holes = 0;
  for (int round = 0; round < 3000; ++round) {
    ReadReplyOptions options;
    options.granule = ByteCount{random.PowerOfTwo(1, 65536)};
    options.maximum_payload = ByteCount{options.granule.value * random.Between(1, 16)};
    if (options.granule.value < 512) options.maximum_payload = ByteCount{4096};
    const uint64_t size = RoundUp(random.Between(1, 200000), options.granule.value);
    const std::vector<std::byte> image = RandomImage(random, size);
    ByteRange range = random.RangeWithin(size);
    const bool aligned = random.OneIn(2);
    if (aligned) range = AlignOutward(range, options.granule, ByteCount{size});
    const Bytes data = Bytes(image).subspan(range.offset.value, range.length.value);
    const std::vector<ReadChunk> chunks = Plan(range.offset.value, data, options);
    ASSERT_NO_FATAL_FAILURE(ExpectChunksReadAs(chunks, range, data));
    for (const ReadChunk& chunk : chunks) {
      const bool first = chunk.range.offset == range.offset;
      const bool last = chunk.range.end() == range.end();
      if (!first || aligned) {
        ASSERT_TRUE(IsMultiple(chunk.range.offset.value, options.granule.value));
      }
      if (!last || aligned) {
        ASSERT_TRUE(IsMultiple(chunk.range.end().value, options.granule.value));
      }
      const uint64_t length = chunk.range.length.value;
      if (!chunk.hole) {
        ASSERT_LE(length, options.maximum_payload.value);
        continue;
      }
      ++holes;
      const uint64_t shortest = first || last ? 512 : 4096;
      ASSERT_GE(length, std::max(options.granule.value, shortest));
    }
  }
  EXPECT_GT(holes, 500);
}

}  // namespace
}  // namespace gabion::nbd
