#include "engine/formats/qcow2/geometry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "tests/support/random_source.h"

namespace gabion::qcow2 {
namespace {

using ::testing::ElementsAre;

std::vector<int> Stored(uint32_t order, const std::vector<uint64_t>& values) {
  std::vector<std::byte> block((values.size() << order) / 8);
  for (std::size_t i = 0; i < values.size(); ++i) StoreRefcount(block.data(), i, order, values[i]);
  std::vector<int> bytes;
  for (const std::byte b : block) bytes.push_back(std::to_integer<int>(b));
  return bytes;
}

TEST(RefcountTest, WidthsBelowAByteBeginWithTheLeastSignificantBit) {
  EXPECT_THAT(Stored(0, {1, 0, 0, 0, 0, 0, 0, 1}), ElementsAre(0x81));
  EXPECT_THAT(Stored(0, {0, 1, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0}), ElementsAre(0x06, 0x01));
  EXPECT_THAT(Stored(1, {1, 2, 3, 0}), ElementsAre(0x39));
  EXPECT_THAT(Stored(2, {0x1, 0xf, 0x2, 0x0}), ElementsAre(0xf1, 0x02));
}

TEST(RefcountTest, WidthsFromAByteAreBigEndian) {
  EXPECT_THAT(Stored(3, {0x12, 0xff}), ElementsAre(0x12, 0xff));
  EXPECT_THAT(Stored(4, {0x1234, 1}), ElementsAre(0x12, 0x34, 0, 1));
  EXPECT_THAT(Stored(5, {0x12345678}), ElementsAre(0x12, 0x34, 0x56, 0x78));
  EXPECT_THAT(Stored(6, {0x0102030405060708}), ElementsAre(1, 2, 3, 4, 5, 6, 7, 8));
}

TEST(RefcountTest, EachKeepsItsValueWhileItsNeighboursChange) {
  test::RandomSource random;
  for (uint32_t order = 0; order <= kMaxRefcountOrder; ++order) {
    constexpr std::size_t kBlock = 512;
    std::vector<std::byte> block(kBlock);
    random.FillNonZero(block);
    std::vector<uint64_t> values(kBlock * 8 >> order);
    for (std::size_t i = 0; i < values.size(); ++i) {
      values[i] = LoadRefcount(block.data(), i, order);
    }
    for (int step = 0; step < 5000; ++step) {
      const uint64_t index = random.Below(values.size());
      values[index] = random.Next() >> (64 - (1u << order));
      StoreRefcount(block.data(), index, order, values[index]);
    }
    for (std::size_t i = 0; i < values.size(); ++i) {
      ASSERT_EQ(LoadRefcount(block.data(), i, order), values[i]) << order << " " << i;
    }
  }
}

TEST(RefcountDeathTest, AValueThatDoesNotFitIsRefused) {
  std::byte block[8] = {};
  EXPECT_DEATH(StoreRefcount(block, 0, 1, 4), "order");
}

TEST(GeometryTest, ACompressedEntryClaimsWholeSectorsFromTheOneOfItsOffset) {
  Header header;
  header.cluster_bits = 16;
  const Geometry geometry(header);
  EXPECT_EQ(geometry.compressed_size_shift(), 54u);
  const uint64_t entry = kCompressed | uint64_t{3} << 54 | 0x12345;
  EXPECT_EQ(geometry.CompressedOffset(entry), 0x12345u);
  EXPECT_EQ(geometry.CompressedBytes(entry), 4 * 512 - (0x12345 & 511));
  const uint64_t most = kCompressed | uint64_t{0xff} << 54;
  EXPECT_EQ(geometry.CompressedBytes(most), 256u * 512);
}

}  // namespace
}  // namespace gabion::qcow2
