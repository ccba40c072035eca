#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/bytes.h"
#include "engine/formats/qcow2/create.h"
#include "tests/engine/formats/qcow2/bytes_of_image.h"
#include "tests/engine/formats/qcow2/qemu_tools.h"
#include "tests/support/random_source.h"
#include "tests/support_io/temp_dir.h"

namespace gabion::qcow2::testing {
namespace {

using ::testing::HasSubstr;

class NewImageByQemuTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string missing = MissingQemuTool(); !missing.empty()) GTEST_SKIP() << missing;
  }

  // Writes the image as whoever makes one does: piece by piece, then what is behind as a hole.
  void Write(const NewImageLayout& layout) {
    std::ofstream out(path_, std::ios::binary | std::ios::trunc);
    std::vector<std::byte> piece;
    for (uint64_t at = 0; at < layout.metadata_bytes(); at += piece.size()) {
      piece.resize(std::min(random_.Between(1, kMiB), layout.metadata_bytes() - at));
      layout.Fill(at, piece);
      out << AsText(piece);
    }
    out.close();
    std::filesystem::resize_file(path_, layout.file_bytes());
  }

  std::string Run(const std::string& command) {
    const CommandResult result = RunCommand(command);
    EXPECT_EQ(result.exit_status, 0) << command << "\n" << result.output;
    return result.output;
  }

  void ExpectChecked() {
    EXPECT_THAT(Run("qemu-img check -f qcow2 " + path_), HasSubstr("No errors were found"));
  }

  void ExpectInfo(const CreateOptions& options) {
    const std::string info = Run("qemu-img info -f qcow2 --output=json " + path_);
    const auto has = [&](const std::string& text) { EXPECT_THAT(info, HasSubstr(text)); };
    EXPECT_EQ(NumberAfter(info, "\"virtual-size\": "), options.size);
    EXPECT_EQ(NumberAfter(info, "\"cluster-size\": "), uint64_t{1} << options.cluster_bits);
    EXPECT_EQ(NumberAfter(info, "\"refcount-bits\": "), 1u << options.refcount_order);
    has(absl::StrCat("\"compat\": \"", options.version == 2 ? "0.10" : "1.1", "\""));
    has(absl::StrCat("\"compression-type\": \"",
                     options.compression == Compression::kZstd ? "zstd" : "zlib", "\""));
    if (options.version == 2) return;  // which has no features to tell of
    has(absl::StrCat("\"lazy-refcounts\": ", options.lazy_refcounts ? "true" : "false"));
    has(absl::StrCat("\"extended-l2\": ", options.extended_l2 ? "true" : "false"));
  }

  // Writes at random places, compressed too, and reads back.
  void ExpectWritable(const CreateOptions& options) {
    std::string command = "qemu-io -f qcow2 -c 'r -P 0 0 512'";
    const uint64_t cluster = uint64_t{1} << options.cluster_bits;
    if (!options.preallocate_metadata && options.size >= cluster) {
      // QEMU compresses only what is not allocated; what follows may overwrite it.
      absl::StrAppend(&command, " -c 'w -c -P 9 0 ", cluster, "' -c 'r -P 9 0 ", cluster, "'");
    }
    std::string reads;
    for (int pattern = 1; pattern <= 4; ++pattern) {
      // One place in each quarter of the disk.
      const uint64_t quarter = options.size / 4 / 512;
      const uint64_t sector = random_.Below(quarter) + quarter * static_cast<uint64_t>(pattern - 1);
      const uint64_t sectors =
          std::min<uint64_t>(random_.Between(1, 600), quarter * pattern - sector);
      const std::string where = absl::StrCat(pattern, " ", sector * 512, " ", sectors * 512, "'");
      absl::StrAppend(&command, " -c 'w -P ", where);
      absl::StrAppend(&reads, " -c 'r -P ", where);
    }
    const std::string output = Run(command + reads + " " + path_);
    EXPECT_EQ(output.find("failed"), std::string::npos) << output;
  }

  void ExpectGood(const CreateOptions& options) {
    const auto layout = NewImageLayout::Plan(options);
    ASSERT_TRUE(layout.ok()) << layout.status();
    Write(*layout);
    ExpectChecked();
    ExpectInfo(options);
    ExpectWritable(options);
    ExpectChecked();
  }

  test::RandomSource random_;
  const test::TempDir dir_;
  const std::string path_ = dir_.File("new.qcow2");
};

// Of at least 2048 sectors, so that there are four places to write to.
uint64_t SomeSize(test::RandomSource& random, const CreateOptions& options) {
  const uint64_t clusters = random.Between(1, options.preallocate_metadata ? 3000 : 300000);
  const uint64_t size = std::max(kMiB, clusters << options.cluster_bits);
  return random.OneIn(2) ? size : size - 512 * random.Below(1000);
}

TEST_F(NewImageByQemuTest, IsGoodInAllClusterSizesAndRefcountWidths) {
  for (const uint32_t bits : {9, 10, 12, 14, 16, 18, 21}) {
    for (uint32_t order = 0; order <= kMaxRefcountOrder; ++order) {
      CreateOptions options;
      options.cluster_bits = bits;
      options.refcount_order = order;
      options.preallocate_metadata = random_.OneIn(2);
      options.extended_l2 = bits >= 14 && random_.OneIn(2);
      options.lazy_refcounts = random_.OneIn(2);
      options.compression = random_.OneIn(2) ? Compression::kZstd : Compression::kDeflate;
      options.size = SomeSize(random_, options);
      SCOPED_TRACE(absl::StrCat(QemuOptions(options), " size ", options.size));
      ASSERT_NO_FATAL_FAILURE(ExpectGood(options));
    }
  }
}

TEST_F(NewImageByQemuTest, IsGoodWithEachFeature) {
  for (const uint32_t bits : {14, 16, 21}) {
    for (int features = 0; features < 16; ++features) {
      CreateOptions options;
      options.cluster_bits = bits;
      options.preallocate_metadata = (features & 1) != 0;
      options.extended_l2 = (features & 2) != 0;
      options.compression = (features & 4) != 0 ? Compression::kZstd : Compression::kDeflate;
      options.version = (features & 8) != 0 ? 2 : 3;
      if (options.version == 2 && (features & 6) != 0) continue;
      options.size = SomeSize(random_, options);
      SCOPED_TRACE(absl::StrCat(QemuOptions(options), " size ", options.size));
      ASSERT_NO_FATAL_FAILURE(ExpectGood(options));
    }
  }
}

TEST_F(NewImageByQemuTest, IsGoodAtTheLargestSizeOfSmallClusters) {
  CreateOptions options;
  options.cluster_bits = 9;
  options.size = 128 * kGiB;
  ASSERT_NO_FATAL_FAILURE(ExpectGood(options));
}

TEST_F(NewImageByQemuTest, PreallocatedReadsAsZerosAndIsAllocated) {
  for (const bool extended : {false, true}) {
    CreateOptions options;
    options.size = 5 * kMiB + 512;
    options.preallocate_metadata = true;
    options.extended_l2 = extended;
    const auto layout = NewImageLayout::Plan(options);
    ASSERT_TRUE(layout.ok());
    Write(*layout);
    const std::string output = Run(absl::StrCat("qemu-io -f qcow2 -c 'r -P 0 0 ", options.size,
                                                "' -c 'alloc 0 ", options.size, "' ", path_));
    EXPECT_EQ(output.find("failed"), std::string::npos) << output;
    EXPECT_THAT(output, HasSubstr(absl::StrCat(options.size, "/", options.size)));
    const std::string check = Run("qemu-img check -f qcow2 --output=json " + path_);
    EXPECT_EQ(NumberAfter(check, "\"allocated-clusters\": "), 81u);
    EXPECT_EQ(NumberAfter(check, "\"total-clusters\": "), 81u);
    EXPECT_EQ(NumberAfter(check, "\"image-end-offset\": "), layout->file_bytes());
  }
}

TEST_F(NewImageByQemuTest, PreallocatedOverABackingFileShowsTheBackingFile) {
  Run("qemu-img create -q -f raw " + dir_.File("base.raw") + " 1M");
  Run("qemu-io -f raw -c 'w -P 7 0 1M' " + dir_.File("base.raw"));
  CreateOptions options;
  options.size = 2 * kMiB;
  options.extended_l2 = true;
  options.backing_file = "base.raw";
  options.backing_format = "raw";
  for (const bool preallocate : {false, true}) {
    options.preallocate_metadata = preallocate;
    const auto layout = NewImageLayout::Plan(options);
    ASSERT_TRUE(layout.ok()) << layout.status();
    Write(*layout);
    ExpectChecked();
    const std::string info = Run("qemu-img info --output=json " + path_);
    EXPECT_THAT(info, HasSubstr("\"backing-filename\": \"base.raw\""));
    EXPECT_THAT(info, HasSubstr("\"backing-filename-format\": \"raw\""));
    const std::string output =
        Run("qemu-io -f qcow2 -c 'w -P 5 2k 2k' -c 'r -P 7 0 2k' "
            "-c 'r -P 5 2k 2k' -c 'r -P 7 4k 1020k' -c 'r -P 0 1M 1M' " +
            path_);
    EXPECT_EQ(output.find("failed"), std::string::npos) << output;
    ExpectChecked();
  }
}

TEST_F(NewImageByQemuTest, IsMeasuredAsQemuMeasures) {
  for (int i = 0; i < 100; ++i) {
    CreateOptions options;
    options.cluster_bits = static_cast<uint32_t>(random_.Between(9, 21));
    options.refcount_order = static_cast<uint32_t>(random_.Below(7));
    options.extended_l2 = options.cluster_bits >= 14 && random_.OneIn(2);
    options.size = 512 * random_.Below(uint64_t{1} << random_.Between(1, 26));
    const auto measured = Measure(options, 0);
    ASSERT_TRUE(measured.ok()) << measured.status();
    const std::string output = Run(absl::StrCat("qemu-img measure -O qcow2 -o ",
                                                QemuOptions(options), " --size ", options.size));
    SCOPED_TRACE(absl::StrCat(QemuOptions(options), " size ", options.size));
    EXPECT_EQ(measured->required, NumberAfter(output, "required size: "));
    EXPECT_EQ(measured->fully_allocated, NumberAfter(output, "fully allocated size: "));
  }
}

TEST_F(NewImageByQemuTest, IsMeasuredAsQemuMeasuresACopy) {
  const std::string raw = dir_.File("disk.raw");
  Run("qemu-img create -q -f raw " + raw + " 10M");
  Run("qemu-io -f raw -c 'w 0 64k' -c 'w 1M 128k' -c 'w 5M 1M' " + raw);
  CreateOptions options;
  options.size = 10 * kMiB;
  const auto measured = Measure(options, 1 + 2 + 16);
  const std::string output = Run("qemu-img measure -f raw -O qcow2 " + raw);
  EXPECT_EQ(measured->required, NumberAfter(output, "required size: "));
  EXPECT_EQ(measured->fully_allocated, NumberAfter(output, "fully allocated size: "));
}

}  // namespace
}  // namespace gabion::qcow2::testing
