#include "engine/block/sparse_memory.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "tests/support/random_source.h"

namespace gabion::block {
namespace {

constexpr uint64_t kChunk = 4096;
constexpr uint64_t kTera = uint64_t{1} << 40;

SparseMemoryOptions Options(uint64_t size, uint64_t limit) {
  return {.size = ByteCount{size}, .limit = ByteCount{limit}, .chunk_bytes = kChunk};
}

std::vector<std::byte> Pattern(std::size_t size, uint8_t value) {
  return std::vector<std::byte>(size, std::byte{value});
}

absl::Status Write(SparseMemory& memory, ByteRange range, uint8_t value) {
  const std::vector<std::byte> bytes = Pattern(range.length.value, value);
  return memory.Write(range, bytes, {}).Take();
}

std::vector<std::byte> Read(SparseMemory& memory, ByteRange range) {
  std::vector<std::byte> bytes = Pattern(range.length.value, 0xee);
  EXPECT_TRUE(memory.Read(range, bytes).Take().ok());
  return bytes;
}

ExtentList StatusOf(SparseMemory& memory, ByteRange range) {
  return *memory.BlockStatus(range, 100).Take();
}

TEST(SparseMemoryTest, TakesMemoryForTheChunksThatAreTouched) {
  SparseMemory memory(Options(kTera, 10 * kChunk));
  EXPECT_EQ(memory.used(), ByteCount{0});
  EXPECT_TRUE(Write(memory, Range(kTera / 2 + kChunk - 1, 2), 7).ok());
  EXPECT_EQ(memory.used(), ByteCount{2 * kChunk});
  EXPECT_EQ(Read(memory, Range(kTera / 2 + kChunk - 2, 4)),
            (std::vector<std::byte>{std::byte{0}, std::byte{7}, std::byte{7}, std::byte{0}}));
}

TEST(SparseMemoryTest, AWriteThatDoesNotFitChangesNothing) {
  SparseMemory memory(Options(100 * kChunk, 3 * kChunk));
  EXPECT_TRUE(Write(memory, Range(kChunk, 2 * kChunk), 1).ok());
  const absl::Status status = Write(memory, Range(2 * kChunk, 3 * kChunk), 2);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(memory.used(), ByteCount{2 * kChunk});
  EXPECT_EQ(Read(memory, Range(2 * kChunk, kChunk)), Pattern(kChunk, 1));
  EXPECT_TRUE(Write(memory, Range(2 * kChunk, 2 * kChunk), 2).ok()) << "one more chunk fits";
}

TEST(SparseMemoryTest, ZerosOfWholeChunksGiveMemoryBackAndPartsAreWiped) {
  SparseMemory memory(Options(10 * kChunk, 10 * kChunk));
  EXPECT_TRUE(Write(memory, Range(0, 4 * kChunk), 1).ok());
  EXPECT_TRUE(memory.Zero(Range(kChunk / 2, 3 * kChunk), {}).Take().ok());
  EXPECT_EQ(memory.used(), ByteCount{2 * kChunk});
  EXPECT_EQ(Read(memory, Range(0, kChunk / 2)), Pattern(kChunk / 2, 1));
  EXPECT_EQ(Read(memory, Range(kChunk / 2, 3 * kChunk)), Pattern(3 * kChunk, 0));
  EXPECT_EQ(Read(memory, Range(7 * kChunk / 2, kChunk / 2)), Pattern(kChunk / 2, 1));
}

TEST(SparseMemoryTest, ADiscardLeavesPartsOfChunksAlone) {
  SparseMemory memory(Options(10 * kChunk, 10 * kChunk));
  EXPECT_TRUE(Write(memory, Range(0, 3 * kChunk), 1).ok());
  EXPECT_TRUE(memory.Discard(Range(1, 3 * kChunk - 2)).Take().ok());
  EXPECT_EQ(memory.used(), ByteCount{2 * kChunk});
  EXPECT_EQ(Read(memory, Range(0, kChunk)), Pattern(kChunk, 1));
  EXPECT_EQ(Read(memory, Range(kChunk, kChunk)), Pattern(kChunk, 0));
}

TEST(SparseMemoryTest, ZerosThatKeepTheirSpaceTakeIt) {
  SparseMemory memory(Options(10 * kChunk, 2 * kChunk));
  EXPECT_TRUE(memory.Zero(Range(0, 2 * kChunk), {.may_unmap = false}).Take().ok());
  EXPECT_EQ(memory.used(), ByteCount{2 * kChunk});
  const absl::Status status = memory.Zero(Range(4 * kChunk, 1), {.may_unmap = false}).Take();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
}

TEST(SparseMemoryTest, StatusIsByChunkAndEndsWithTheDisk) {
  SparseMemory memory(Options(10 * kChunk + 5, 10 * kChunk));
  EXPECT_TRUE(Write(memory, Range(kChunk + 1, 1), 1).ok());
  EXPECT_TRUE(memory.Zero(Range(9 * kChunk, kChunk + 5), {}).Take().ok());
  const ExtentList expected = {
      {.range = Range(10, kChunk - 10), .kind = ExtentKind::kUnallocated, .layer = 0},
      {.range = Range(kChunk, kChunk), .kind = ExtentKind::kData, .layer = 1},
      {.range = Range(2 * kChunk, 7 * kChunk), .kind = ExtentKind::kUnallocated, .layer = 0},
      {.range = Range(9 * kChunk, kChunk + 5), .kind = ExtentKind::kZero, .layer = 1}};
  EXPECT_EQ(StatusOf(memory, Range(10, 10 * kChunk - 5)), expected);
  EXPECT_EQ(memory.BlockStatus(Range(10, 9 * kChunk), 2).Take()->size(), 2u);
}

TEST(SparseMemoryTest, WhatWasCutOffIsZeroWhenTheDiskGrowsAgain) {
  SparseMemory memory(Options(3 * kChunk, 10 * kChunk));
  EXPECT_TRUE(Write(memory, Range(0, 3 * kChunk), 1).ok());
  EXPECT_TRUE(memory.Resize(ByteCount{100}).Take().ok());
  EXPECT_EQ(memory.used(), ByteCount{kChunk});
  EXPECT_TRUE(memory.Resize(ByteCount{2 * kChunk}).Take().ok());
  EXPECT_EQ(Read(memory, Range(0, 100)), Pattern(100, 1));
  EXPECT_EQ(Read(memory, Range(100, 2 * kChunk - 100)), Pattern(2 * kChunk - 100, 0));
}

TEST(SparseMemoryPropertyTest, IsAnArrayOfBytes) {
  test::RandomSource random;
  for (int round = 0; round < 100; ++round) {
    const uint64_t size = random.Between(1, 12 * kChunk);
    SparseMemory memory(Options(size, 12 * kChunk));
    std::vector<std::byte> model(size);
    for (int step = 0; step < 60; ++step) {
      const ByteRange range = random.RangeWithin(size);
      std::byte* const first = model.data() + range.offset.value;
      std::byte* const last = first + range.length.value;
      if (random.OneIn(2)) {
        std::vector<std::byte> bytes(range.length.value);
        random.FillNonZero(bytes);
        ASSERT_TRUE(memory.Write(range, bytes, {}).Take().ok());
        std::copy(bytes.begin(), bytes.end(), first);
      } else {
        ASSERT_TRUE(memory.Zero(range, {.may_unmap = random.OneIn(2)}).Take().ok());
        std::fill(first, last, std::byte{0});
      }
      ASSERT_EQ(Read(memory, Range(0, size)), model);
      const ByteRange asked = random.RangeWithin(size);
      uint64_t at = asked.offset.value;
      for (const Extent& extent : StatusOf(memory, asked)) {
        ASSERT_EQ(extent.range.offset.value, at);
        at = extent.range.end().value;
        const bool is_zero =
            std::all_of(model.data() + extent.range.offset.value, model.data() + at,
                        [](std::byte byte) { return byte == std::byte{0}; });
        ASSERT_TRUE(!ReadsZero(extent.kind) || is_zero);
        ASSERT_EQ(extent.layer == 0, extent.kind == ExtentKind::kUnallocated);
      }
      ASSERT_EQ(at, asked.end().value);
    }
  }
}

}  // namespace
}  // namespace gabion::block
