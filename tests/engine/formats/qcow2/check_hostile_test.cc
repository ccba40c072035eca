// Images made to be expensive: the check ends after work in proportion to the file, with bounded
// memory, whatever its tables say.
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "engine/base/bytes.h"
#include "engine/formats/qcow2/layout.h"
#include "tests/engine/formats/qcow2/check_testing.h"
#include "tests/support/random_source.h"

namespace gabion::qcow2::testing {
namespace {

// A file whose first bytes are there, and of which nothing else is but its length.
class HugeFile final : public io::File {
 public:
  HugeFile(ImageFile start, uint64_t size) : start_(std::move(start)), size_{size} {}

  uint64_t bytes_read = 0;
  uint64_t reads = 0;

  ByteCount size() const override { return size_; }
  bool writable() const override { return false; }
  uint32_t alignment() const override { return 1; }
  std::string_view driver() const override { return "huge"; }
  Task<absl::Status> Read(ByteOffset offset, MutableBytes dst) override {
    ++reads;
    bytes_read += dst.size();
    const uint64_t from = std::min<uint64_t>(offset.value, start_.size());
    const uint64_t length = std::min<uint64_t>(dst.size(), start_.size() - from);
    std::copy_n(start_.begin() + static_cast<std::ptrdiff_t>(from), length, dst.begin());
    std::fill(dst.begin() + static_cast<std::ptrdiff_t>(length), dst.end(), std::byte{0});
    return absl::OkStatus();
  }
  Task<absl::Status> Write(ByteOffset, Bytes, bool) override { return Not(); }
  Task<absl::Status> Zero(ByteRange, io::ZeroMode) override { return Not(); }
  Task<absl::Status> Sync() override { return Not(); }
  Task<absl::Status> Prefetch(ByteRange) override { return Not(); }
  Task<absl::StatusOr<std::vector<io::FileExtent>>> Map(ByteRange, std::size_t) override {
    return absl::StatusOr<std::vector<io::FileExtent>>(absl::UnimplementedError("map"));
  }
  Task<absl::Status> Resize(ByteCount) override { return Not(); }
  Task<absl::Status> Close() override { return Not(); }

 private:
  static absl::Status Not() { return absl::UnimplementedError("not of this file"); }

  const ImageFile start_;
  const ByteCount size_;
};

// The header of an image of which nothing else is there yet.
Header Bare(uint32_t cluster_bits) {
  Header header;
  header.cluster_bits = cluster_bits;
  header.refcount_table_offset = uint64_t{1} << cluster_bits;
  header.refcount_table_clusters = 1;
  header.l1_offset = uint64_t{2} << cluster_bits;
  header.l1_size = 1;
  return header;
}

TEST(CheckHostileTest, ATableThatAllOfL1PointsToIsReadOnce) {
  Header header = Bare(21);
  header.l1_size = 4 << 20;  // 32 MiB
  const uint64_t table = uint64_t{18} << 21;
  ImageFile start(table + (2 << 21));
  for (uint64_t i = 0; i < header.l1_size; ++i) Put64(start, header.l1_offset + i * 8, table);
  for (uint64_t i = 0; i < (1 << 18); ++i) Put64(start, table + i * 8, table + (1 << 21));
  HugeFile file(start, start.size());
  const auto result = CheckImage(file, header, {}, nullptr).Take();
  ASSERT_TRUE(result.ok()) << result.status();
  const auto is_data = [&](const Finding& finding) {
    return finding.host_offset == table + (1 << 21) &&
           finding.text.ends_with("refcount 0, references 1099511627776");
  };
  EXPECT_TRUE(std::ranges::any_of(result->findings, is_data)) << Text(*result);
  EXPECT_LT(file.bytes_read, 3 * start.size());
}

TEST(CheckHostileTest, SnapshotsWhoseTablesLieOverEachOtherAreReadOnce) {
  Header header = Bare(12);
  header.snapshot_count = 65536;
  header.snapshots_offset = 16 << 12;
  const uint64_t table_bytes = 65536 * 56;
  const uint64_t l1 = header.snapshots_offset + (table_bytes | 4095) + 1;
  const uint64_t l1_bytes = 32 * kMiB;
  ImageFile start(l1 + l1_bytes + kMiB);
  Put32(start, kSnapshotCountField, header.snapshot_count);
  for (uint64_t i = 0; i < header.snapshot_count; ++i) {
    const uint64_t at = header.snapshots_offset + i * 56;
    const uint64_t skip = (i % 8192) * 4096;
    Put64(start, at, l1 + skip);
    Put32(start, at + 8, static_cast<uint32_t>((l1_bytes - skip) / 8));
    Put32(start, at + 36, 16);
  }
  const uint64_t table = l1 + l1_bytes;
  for (uint64_t at = l1; at < table; at += 8) Put64(start, at, table + at % 128 * 4096);
  HugeFile file(start, start.size());
  const auto result = CheckImage(file, header, {}, nullptr).Take();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_GT(result->corruptions, 0u);
  EXPECT_LT(file.bytes_read, 4 * start.size());
}

TEST(CheckHostileTest, AFileThatIsFarTooLongIsRefusedOrSkimmed) {
  Header header = Bare(16);
  ImageFile start(4 << 16);
  const uint64_t far = uint64_t{1} << 45;
  Put64(start, header.l1_offset, far + (1 << 16));
  HugeFile skimmed(start, far + (4 << 16));
  const auto result = CheckImage(skimmed, header, {}, nullptr).Take();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->image_end_offset, far + (2 << 16)) << "in the last of many windows";
  EXPECT_LT(skimmed.reads, 100u);
  HugeFile refused(start, uint64_t{1} << 60);
  EXPECT_EQ(CheckImage(refused, header, {}, nullptr).Take().status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(refused.reads, 0u);
}

// Everything but the header's own fields is random; also with bitmaps and snapshots.
TEST(CheckHostileTest, RandomTablesEndInAVerdict) {
  test::RandomSource random;
  for (int round = 0; round < 150; ++round) {
    Header header = Bare(static_cast<uint32_t>(random.Between(9, 16)));
    const uint64_t size = header.cluster_size();
    ImageFile start(size * random.Between(8, 60));
    const uint64_t clusters = start.size() / size;
    const uint64_t shapes = random.Below(4);
    for (std::size_t at = 0; at + 8 <= start.size(); at += 8) {
      uint64_t value = random.Next();
      if (shapes > 0) value = random.Below(clusters + 2) * size | (random.Below(2) << 63);
      if (shapes > 1 && random.OneIn(2)) value = 0;
      Put64(start, at, value);
    }
    header.refcount_order = static_cast<uint32_t>(random.Below(7));
    header.l1_offset = random.Below(clusters) * size;
    header.l1_size = static_cast<uint32_t>(random.Below((start.size() - header.l1_offset) / 8));
    header.refcount_table_offset = random.Below(clusters) * size;
    if (header.cluster_bits >= 14 && random.OneIn(2)) {
      header.incompatible |= kIncompatibleExtendedL2;
    }
    if (random.OneIn(2)) {
      header.snapshot_count = static_cast<uint32_t>(random.Below(4));
      header.snapshots_offset = random.Below(clusters) * size;
    }
    Put32(start, kSnapshotCountField, header.snapshot_count);
    if (random.OneIn(2)) {
      header.autoclear = kAutoclearBitmaps;
      header.bitmaps =
          BitmapsExtension{3, random.Below(start.size()), random.Below(clusters) * size};
    }
    CheckOptions options;
    options.repair = random.OneIn(2) ? Repair::kAll : Repair::kLeaks;
    options.window_clusters = 64;
    test::MemoryFile file(start.size());
    file.bytes() = start;
    const auto result = CheckImage(file, header, options, nullptr).Take();
    if (result.ok()) {
      EXPECT_LE(result->findings.size(), options.max_findings);
    } else {
      EXPECT_EQ(result.status().code(), absl::StatusCode::kResourceExhausted) << result.status();
    }
    EXPECT_LE(file.count("read"), 20 * (start.size() / 512 + 1000));
    EXPECT_LE(file.bytes().size(), start.size() + 64 * kMiB);
  }
}

}  // namespace
}  // namespace gabion::qcow2::testing
