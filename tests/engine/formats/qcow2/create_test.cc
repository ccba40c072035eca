#include "engine/formats/qcow2/create.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "engine/base/bytes.h"
#include "tests/engine/formats/qcow2/bytes_of_image.h"
#include "tests/support/random_source.h"

namespace gabion::qcow2 {
namespace {

using ::testing::HasSubstr;
using testing::ImageFile;

CreateOptions RandomOptions(test::RandomSource& random) {
  CreateOptions options;
  options.cluster_bits = static_cast<uint32_t>(random.Between(9, 21));
  options.size = random.Below(2000) * (uint64_t{1} << options.cluster_bits) + random.Below(4096);
  options.preallocate_metadata = random.OneIn(2) && options.size < 64 * kMiB;
  if (random.OneIn(5)) {
    options.version = 2;
    return options;
  }
  options.refcount_order = static_cast<uint32_t>(random.Below(7));
  options.extended_l2 = options.cluster_bits >= 14 && random.OneIn(2);
  options.lazy_refcounts = random.OneIn(2);
  if (random.OneIn(2)) options.compression = Compression::kZstd;
  if (random.OneIn(3) && (options.extended_l2 || !options.preallocate_metadata)) {
    options.backing_file = "base.qcow2";
    options.backing_format = "qcow2";
  }
  return options;
}

// Reads an image as the specification says, and knows nothing of how it was made.
class Reader {
 public:
  explicit Reader(const ImageFile& file, const Header& header)
      : file_(file), header_(header), geometry_(header) {}

  uint64_t Refcount(uint64_t cluster) const {
    const uint64_t block = cluster >> geometry_.refcount_block_bits();
    if (block * 8 >= uint64_t{header_.refcount_table_clusters} << header_.cluster_bits) return 0;
    const uint64_t offset = At(header_.refcount_table_offset + block * 8);
    EXPECT_EQ(offset % geometry_.cluster_size(), 0u);
    if (offset == 0) return 0;
    const uint64_t per_block = uint64_t{1} << geometry_.refcount_block_bits();
    return LoadRefcount(file_.data() + offset, cluster % per_block, header_.refcount_order);
  }

  // The references that there are to each cluster of the file.
  std::vector<uint64_t> References() const {
    std::vector<uint64_t> found(file_.size() >> header_.cluster_bits);
    const auto refer = [&](uint64_t offset) { ++found.at(geometry_.ClusterOf(offset)); };
    refer(0);
    for (uint64_t i = 0; i < header_.refcount_table_clusters; ++i) {
      const uint64_t table = header_.refcount_table_offset + (i << header_.cluster_bits);
      refer(table);
      for (uint64_t at = 0; at < geometry_.cluster_size(); at += 8) {
        if (At(table + at) != 0) refer(At(table + at));
      }
    }
    for (uint64_t i = 0; i < geometry_.Clusters(header_.l1_size * uint64_t{8}); ++i) {
      refer(header_.l1_offset + (i << header_.cluster_bits));
    }
    for (uint64_t i = 0; i < header_.l1_size; ++i) {
      const uint64_t l2 = At(header_.l1_offset + i * 8);
      if (l2 == 0) continue;
      EXPECT_EQ(l2 & ~kOffsetMask, kCopied);
      refer(l2 & kOffsetMask);
      for (uint64_t j = 0; j < geometry_.l2_entries(); ++j) {
        const uint64_t entry = At((l2 & kOffsetMask) + (j << geometry_.l2_entry_bits()));
        if (entry == 0) continue;
        EXPECT_EQ(entry & ~kOffsetMask, kCopied);
        refer(entry & kOffsetMask);
      }
    }
    return found;
  }

  // Of the guest's cluster `index`: its L2 entry, and its bitmap of subclusters.
  std::pair<uint64_t, uint64_t> Entry(uint64_t index) const {
    const uint64_t l2 = At(header_.l1_offset + (index >> geometry_.l2_bits()) * 8) & kOffsetMask;
    if (l2 == 0) return {0, 0};
    const uint64_t at = l2 + ((index & (geometry_.l2_entries() - 1)) << geometry_.l2_entry_bits());
    return {At(at), geometry_.extended ? At(at + 8) : 0};
  }

 private:
  uint64_t At(uint64_t offset) const { return LoadBe64(&file_.at(offset)); }

  const ImageFile& file_;
  const Header header_;
  const Geometry geometry_;
};

void ExpectPreallocated(const Reader& reader, const CreateOptions& options, uint64_t clusters) {
  for (uint64_t i = 0; i < clusters; ++i) {
    const auto [entry, bitmap] = reader.Entry(i);
    ASSERT_EQ(entry != 0, options.preallocate_metadata) << i;
    const bool allocated =
        options.preallocate_metadata && options.extended_l2 && !options.backing_file;
    ASSERT_EQ(bitmap, allocated ? 0xffffffffu : 0u) << i;
  }
}

TEST(NewImageTest, EveryClusterIsReferredToOnceAndCountedOnce) {
  test::RandomSource random;
  for (int i = 0; i < 300; ++i) {
    const CreateOptions options = RandomOptions(random);
    const auto layout = NewImageLayout::Plan(options);
    ASSERT_TRUE(layout.ok()) << layout.status();
    if (layout->file_bytes() > 128 * kMiB) continue;
    const ImageFile file = testing::NewImage(*layout);
    const auto parsed = testing::Parse(file, Access::kReadWrite);
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    ASSERT_TRUE(parsed->header == layout->header());
    ASSERT_EQ(parsed->header.size, options.size);

    const Reader reader(file, parsed->header);
    const std::vector<uint64_t> references = reader.References();
    ASSERT_EQ(references.size() << options.cluster_bits, file.size());
    for (std::size_t cluster = 0; cluster < references.size(); ++cluster) {
      ASSERT_EQ(references[cluster], 1u) << cluster;
      ASSERT_EQ(reader.Refcount(cluster), 1u) << cluster;
    }
    for (std::size_t beyond = 0; beyond < 600; ++beyond) {
      ASSERT_EQ(reader.Refcount(references.size() + beyond), 0u);
    }
    ExpectPreallocated(reader, options, Geometry(parsed->header).Clusters(options.size));
  }
}

TEST(NewImageTest, AnyPieceIsThatPieceOfTheWhole) {
  test::RandomSource random;
  for (int i = 0; i < 50; ++i) {
    CreateOptions options = RandomOptions(random);
    options.cluster_bits = static_cast<uint32_t>(random.Between(9, 16));
    options.extended_l2 = false;
    options.size = random.Below(8 * kMiB);
    options.backing_file.reset();
    options.backing_format.reset();
    const auto layout = NewImageLayout::Plan(options);
    ASSERT_TRUE(layout.ok()) << layout.status();
    std::vector<std::byte> whole(layout->metadata_bytes());
    layout->Fill(0, whole);
    for (int piece = 0; piece < 20; ++piece) {
      const ByteRange range = random.RangeWithin(whole.size());
      std::vector<std::byte> part(range.length.value);
      layout->Fill(range.offset.value, part);
      ASSERT_TRUE(std::equal(part.begin(), part.end(), whole.begin() + range.offset.value));
    }
  }
}

TEST(NewImageTest, TheRefcountTableIsLargeEnoughForTheFullDisk) {
  CreateOptions options;
  options.cluster_bits = 9;
  options.size = 64 * kGiB;
  const auto layout = NewImageLayout::Plan(options);
  ASSERT_TRUE(layout.ok()) << layout.status();
  // 2^27 clusters of data and 2^21 of L2 tables, 256 to a block, 64 blocks to a cluster of table.
  EXPECT_GE(layout->header().refcount_table_clusters, (1u << 27) / 256 / 64);
  EXPECT_LE(layout->header().refcount_table_clusters, (1u << 27) / 256 / 64 * 33 / 32);
}

TEST(NewImageTest, ADiskWhoseRefcountsCannotAllBeHeldStillBeginsWithTheLargestTable) {
  CreateOptions options;
  options.cluster_bits = 9;
  options.refcount_order = 6;
  options.size = 128 * kGiB;
  const auto layout = NewImageLayout::Plan(options);
  ASSERT_TRUE(layout.ok()) << layout.status();
  EXPECT_EQ(layout->header().refcount_table_clusters * uint64_t{512}, kMaxRefcountTableBytes);
  options.preallocate_metadata = true;
  EXPECT_THAT(std::string(NewImageLayout::Plan(options).status().message()),
              HasSubstr("refcount table"));
}

TEST(NewImageTest, AnEmptyDiskHasNoL1Table) {
  const auto layout = NewImageLayout::Plan({});
  ASSERT_TRUE(layout.ok());
  EXPECT_EQ(layout->header().l1_size, 0u);
  EXPECT_EQ(layout->header().l1_offset, 0u);
  EXPECT_TRUE(testing::Parse(testing::NewImage(*layout), Access::kReadWrite).ok());
}

struct BadOption {
  const char* name;
  std::function<void(CreateOptions&)> set;
  const char* message;
};

const BadOption kBadOptions[] = {
    {"ClusterBits8", [](CreateOptions& o) { o.cluster_bits = 8; }, "cluster_bits is 8"},
    {"ClusterBits22", [](CreateOptions& o) { o.cluster_bits = 22; }, "512 bytes to 2 MiB"},
    {"ClusterBitsMax", [](CreateOptions& o) { o.cluster_bits = ~0u; }, "cluster_bits"},
    {"ExtendedL2With8KiB",
     [](CreateOptions& o) {
       o.cluster_bits = 13;
       o.extended_l2 = true;
     },
     "16 KiB"},
    {"RefcountOrder7", [](CreateOptions& o) { o.refcount_order = 7; }, "1 to 64 bits"},
    {"Version1", [](CreateOptions& o) { o.version = 1; }, "version is 1"},
    {"Version4", [](CreateOptions& o) { o.version = 4; }, "version is 4"},
    {"Version2Refcounts",
     [](CreateOptions& o) {
       o.version = 2;
       o.refcount_order = 3;
     },
     "refcount_bits is 8"},
    {"Version2Zstd",
     [](CreateOptions& o) {
       o.version = 2;
       o.compression = Compression::kZstd;
     },
     "compression"},
    {"Version2Lazy",
     [](CreateOptions& o) {
       o.version = 2;
       o.lazy_refcounts = true;
     },
     "lazy_refcounts"},
    {"Version2ExtendedL2",
     [](CreateOptions& o) {
       o.version = 2;
       o.extended_l2 = true;
     },
     "extended_l2"},
    {"SizeMax", [](CreateOptions& o) { o.size = ~uint64_t{0}; }, "at most 2251799813685248"},
    {"SizeWithSmallClusters",
     [](CreateOptions& o) {
       o.cluster_bits = 9;
       o.size = 128 * kGiB + 1;
     },
     "at most 137438953472"},
    {"SizeOfPreallocated",
     [](CreateOptions& o) {
       o.cluster_bits = 21;
       o.size = uint64_t{1} << 57;
       o.preallocate_metadata = true;
     },
     "64 PiB"},
    {"NameEmpty", [](CreateOptions& o) { o.backing_file = ""; }, "1 to 1023"},
    {"NameLong", [](CreateOptions& o) { o.backing_file = std::string(1024, 'b'); }, "1 to 1023"},
    {"NameWithZero", [](CreateOptions& o) { o.backing_file = std::string("a\0", 2); }, "zero byte"},
    {"NameDoesNotFit",
     [](CreateOptions& o) {
       o.cluster_bits = 9;
       o.backing_file = std::string(500, 'b');
     },
     "must fit into one cluster of 512"},
    {"FormatWithoutName", [](CreateOptions& o) { o.backing_format = "raw"; }, "backing_file"},
    {"FormatLong",
     [](CreateOptions& o) {
       o.backing_file = "b";
       o.backing_format = "0123456789abcdef";
     },
     "backing_format"},
    {"PreallocatedOverBacking",
     [](CreateOptions& o) {
       o.backing_file = "b";
       o.preallocate_metadata = true;
     },
     "extended_l2"},
};

class BadOptionTest : public ::testing::TestWithParam<BadOption> {};

TEST_P(BadOptionTest, IsNamed) {
  CreateOptions options;
  options.size = kGiB;
  ASSERT_TRUE(NewImageLayout::Plan(options).ok());
  GetParam().set(options);
  const absl::Status status = NewImageLayout::Plan(options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(Table, BadOptionTest, ::testing::ValuesIn(kBadOptions),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(NewImageTest, TheLargestDisksCanBePlanned) {
  for (uint32_t bits = 9; bits <= 21; ++bits) {
    CreateOptions options;
    options.cluster_bits = bits;
    options.size = uint64_t{1} << (22 + 2 * bits - 3);
    const auto layout = NewImageLayout::Plan(options);
    ASSERT_TRUE(layout.ok()) << layout.status();
    EXPECT_EQ(layout->header().l1_size, 1u << 22);
    ++options.size;
    EXPECT_FALSE(NewImageLayout::Plan(options).ok());
  }
}

TEST(NewImageTest, WhatIsMeasuredIsWhatIsPlanned) {
  test::RandomSource random;
  for (int i = 0; i < 500; ++i) {
    CreateOptions options = RandomOptions(random);
    options.backing_file.reset();
    options.backing_format.reset();
    options.preallocate_metadata = true;
    const auto layout = NewImageLayout::Plan(options);
    const auto measured = Measure(options, 0);
    ASSERT_TRUE(layout.ok() && measured.ok());
    EXPECT_EQ(measured->fully_allocated, layout->file_bytes());
    EXPECT_EQ(measured->required, layout->metadata_bytes());
    EXPECT_EQ(Measure(options, ~uint64_t{0})->required, measured->fully_allocated);
  }
}

}  // namespace
}  // namespace gabion::qcow2
