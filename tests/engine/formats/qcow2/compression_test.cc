#include "engine/formats/qcow2/compression.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/bytes.h"
#include "engine/formats/qcow2/geometry.h"
#include "tests/engine/formats/qcow2/bytes_of_image.h"
#include "tests/engine/formats/qcow2/qemu_tools.h"
#include "tests/support/random_source.h"
#include "tests/support_io/temp_dir.h"

namespace gabion::qcow2 {
namespace {

using ::testing::HasSubstr;
using Buffer = std::vector<std::byte>;

constexpr Compression kBoth[] = {Compression::kDeflate, Compression::kZstd};
constexpr std::size_t kCluster = 65536;

std::string Message(const absl::Status& status) { return std::string(status.message()); }

// Bytes that compress, but not to nothing.
Buffer Text(test::RandomSource& random, std::size_t size) {
  Buffer buffer(size);
  for (std::byte& b : buffer) b = static_cast<std::byte>('a' + random.Below(4));
  return buffer;
}

Buffer Compressed(Compression compression, const Buffer& cluster) {
  Buffer out(cluster.size());
  const auto used = Deflate(compression, cluster, out);
  EXPECT_TRUE(used.ok()) << used.status();
  out.resize(used.value_or(0));
  out.shrink_to_fit();
  return out;
}

TEST(CompressionTest, AClusterComesBackWhateverFollowsItsData) {
  test::RandomSource random;
  for (const Compression compression : kBoth) {
    for (std::size_t size = 512; size <= 2 * kMiB; size *= 2) {
      const Buffer cluster = Text(random, size);
      Buffer data = Compressed(compression, cluster);
      Buffer out(size);
      EXPECT_TRUE(Inflate(compression, data, out).ok());
      EXPECT_TRUE(out == cluster);
      data.resize(data.size() + random.Between(1, 511), std::byte{0xa5});
      std::ranges::fill(out, std::byte{0});
      EXPECT_TRUE(Inflate(compression, data, out).ok());
      EXPECT_TRUE(out == cluster);
    }
  }
}

TEST(CompressionTest, WhatDoesNotGetSmallerIsNotCompressed) {
  test::RandomSource random;
  Buffer noise(kCluster);
  random.FillNonZero(noise);
  Buffer out(kCluster - 512);
  for (const Compression compression : kBoth) {
    EXPECT_EQ(Deflate(compression, noise, out).status().code(),
              absl::StatusCode::kResourceExhausted);
  }
}

TEST(CompressionTest, DataOfLessThanAClusterIsDataLoss) {
  test::RandomSource random;
  for (const Compression compression : kBoth) {
    const Buffer data = Compressed(compression, Text(random, kCluster));
    Buffer out(kCluster * 2);
    const absl::Status status = Inflate(compression, data, out);
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    EXPECT_THAT(Message(status), HasSubstr("65536 of 131072"));
  }
}

TEST(CompressionTest, DataOfMoreThanAClusterIsDataLoss) {
  test::RandomSource random;
  for (const Compression compression : kBoth) {
    const Buffer data = Compressed(compression, Text(random, kCluster));
    for (const std::size_t size : {kCluster - 1, kCluster / 2, std::size_t{512}}) {
      Buffer out(size);
      const absl::Status status = Inflate(compression, data, out);
      EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
      EXPECT_THAT(Message(status), HasSubstr("more than"));
    }
  }
}

TEST(CompressionTest, DataThatIsCutIsDataLoss) {
  test::RandomSource random;
  for (const Compression compression : kBoth) {
    const Buffer data = Compressed(compression, Text(random, 4096));
    for (std::size_t length = 0; length + 8 < data.size(); ++length) {
      const Buffer cut(data.begin(), data.begin() + static_cast<std::ptrdiff_t>(length));
      Buffer out(4096);
      ASSERT_EQ(Inflate(compression, cut, out).code(), absl::StatusCode::kDataLoss) << length;
    }
  }
}

TEST(CompressionTest, DamagedDataIsDataLossOrOneCluster) {
  test::RandomSource random;
  for (const Compression compression : kBoth) {
    const Buffer cluster = Text(random, 4096);
    const Buffer data = Compressed(compression, cluster);
    for (int i = 0; i < 5000; ++i) {
      Buffer damaged = data;
      for (uint64_t n = random.Between(1, 4); n > 0; --n) {
        damaged[random.Below(damaged.size())] = static_cast<std::byte>(random.Below(256));
      }
      Buffer out(4096);
      const absl::Status status = Inflate(compression, damaged, out);
      ASSERT_TRUE(status.ok() || absl::IsDataLoss(status)) << status;
    }
  }
}

TEST(CompressionTest, EveryWindowOfDeflateIsRead) {
  test::RandomSource random;
  const Buffer half = Text(random, kCluster / 2);
  Buffer cluster = half;
  cluster.insert(cluster.end(), half.begin(), half.end());  // repeats from 32 KiB away
  for (int bits = 9; bits <= 15; ++bits) {
    Buffer data(kCluster);
    z_stream stream{};
    ASSERT_EQ(deflateInit2(&stream, 9, Z_DEFLATED, -bits, 9, Z_DEFAULT_STRATEGY), Z_OK);
    stream.next_in = reinterpret_cast<Bytef*>(cluster.data());
    stream.avail_in = static_cast<uInt>(cluster.size());
    stream.next_out = reinterpret_cast<Bytef*>(data.data());
    stream.avail_out = static_cast<uInt>(data.size());
    ASSERT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
    data.resize(stream.total_out);
    deflateEnd(&stream);
    Buffer out(kCluster);
    EXPECT_TRUE(Inflate(Compression::kDeflate, data, out).ok()) << bits;
    EXPECT_TRUE(out == cluster) << bits;
  }
}

TEST(CompressionTest, AZlibHeaderIsNotDeflate) {
  Buffer cluster(kCluster, std::byte{7});
  Buffer data(kCluster);
  uLongf used = data.size();
  ASSERT_EQ(compress(reinterpret_cast<Bytef*>(data.data()), &used,
                     reinterpret_cast<Bytef*>(cluster.data()), cluster.size()),
            Z_OK);
  Buffer out(kCluster);
  EXPECT_EQ(Inflate(Compression::kDeflate, Bytes(data).first(used), out).code(),
            absl::StatusCode::kDataLoss);
}

TEST(CompressionTest, AZstdFrameMayAskForTheLargestWindow) {
  test::RandomSource random;
  const Buffer cluster = Text(random, kCluster);
  ZSTD_CCtx* context = ZSTD_createCCtx();
  ZSTD_CCtx_setParameter(context, ZSTD_c_windowLog,
                         ZSTD_cParam_getBounds(ZSTD_c_windowLog).upperBound);
  // In pieces, so that the frame does not know its size and has the window that it was given.
  Buffer data(kCluster);
  ZSTD_outBuffer out{data.data(), data.size(), 0};
  ZSTD_inBuffer first{cluster.data(), cluster.size() / 2, 0};
  ASSERT_FALSE(ZSTD_isError(ZSTD_compressStream2(context, &out, &first, ZSTD_e_flush)));
  ZSTD_inBuffer second{cluster.data() + first.size, cluster.size() - first.size, 0};
  ASSERT_EQ(ZSTD_compressStream2(context, &out, &second, ZSTD_e_end), 0u);
  ZSTD_freeCCtx(context);
  Buffer read(kCluster);
  EXPECT_TRUE(Inflate(Compression::kZstd, Bytes(data).first(out.pos), read).ok());
  EXPECT_TRUE(read == cluster);
}

TEST(CompressionTest, AClusterMayBeSeveralZstdFrames) {
  test::RandomSource random;
  const Buffer a = Text(random, 1000);
  const Buffer b = Text(random, 3096);
  Buffer data = Compressed(Compression::kZstd, a);
  const Buffer more = Compressed(Compression::kZstd, b);
  data.insert(data.end(), more.begin(), more.end());
  Buffer out(4096);
  EXPECT_TRUE(Inflate(Compression::kZstd, data, out).ok());
  EXPECT_TRUE(std::equal(a.begin(), a.end(), out.begin()));
  EXPECT_TRUE(std::equal(b.begin(), b.end(), out.begin() + 1000));
}

TEST(CompressionTest, FramesOfZstdBeforeItsFirstReleaseAreRefused) {
  Buffer data(64);
  for (const uint8_t version : {0x1e, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27}) {
    const uint8_t magic[] = {version, 0xb5, 0x2f, 0xfd};
    std::ranges::copy(std::as_bytes(std::span(magic)), data.begin());
    Buffer out(4096);
    EXPECT_THAT(Message(Inflate(Compression::kZstd, data, out)), HasSubstr("not zstd"));
  }
}

// The compressed cluster at the start of the disk of a small image of QEMU.
Bytes FirstCompressedCluster(const testing::ImageFile& file) {
  const auto parsed = testing::Parse(file, Access::kRead);
  EXPECT_TRUE(parsed.ok()) << parsed.status();
  const Geometry geometry(parsed->header);
  const uint64_t l2 = LoadBe64(&file.at(parsed->header.l1_offset)) & kOffsetMask;
  const uint64_t entry = LoadBe64(&file.at(l2));
  EXPECT_TRUE((entry & kCompressed) != 0);
  const uint64_t offset = geometry.CompressedOffset(entry);
  return Bytes(file).subspan(
      offset, std::min<uint64_t>(geometry.CompressedBytes(entry), file.size() - offset));
}

TEST(CompressionTest, ClustersThatQemuCompressedAreRead) {
  if (const std::string missing = testing::MissingQemuTool(); !missing.empty()) {
    GTEST_SKIP() << missing;
  }
  test::RandomSource random;
  const test::TempDir dir;
  const std::string raw = dir.File("disk.raw");
  const std::string image = dir.File("disk.qcow2");
  for (const uint64_t size : {uint64_t{512}, 4 * kKiB, 64 * kKiB, 2 * kMiB}) {
    const Buffer cluster = Text(random, size);
    testing::WriteWhole(raw, cluster);
    for (const char* type : {"zlib", "zstd"}) {
      const auto made = testing::RunCommand(
          absl::StrCat("qemu-img convert -c -f raw -O qcow2 -o cluster_size=", size,
                       ",compression_type=", type, " ", raw, " ", image));
      ASSERT_EQ(made.exit_status, 0) << made.output;
      const testing::ImageFile file = testing::ReadWhole(image);
      const Compression compression =
          type == std::string_view("zstd") ? Compression::kZstd : Compression::kDeflate;
      Buffer out(size);
      const absl::Status status = Inflate(compression, FirstCompressedCluster(file), out);
      EXPECT_TRUE(status.ok()) << status;
      EXPECT_TRUE(out == cluster);
    }
  }
}

}  // namespace
}  // namespace gabion::qcow2
