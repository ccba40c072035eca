#include "engine/formats/qcow2/snapshots.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "engine/base/bytes.h"
#include "engine/formats/qcow2/layout.h"
#include "tests/engine/formats/qcow2/check_testing.h"
#include "tests/engine/formats/qcow2/qemu_tools.h"

namespace gabion::qcow2::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr uint64_t kTable = 10 * 4096;
constexpr uint64_t kL1 = 20 * 4096;

// A table of its own in clusters of 4 KiB; nothing else of the image matters here.
struct TableImage {
  TableImage() : file(64 * 4096) {
    header.cluster_bits = 12;
    header.snapshots_offset = kTable;
  }

  // Adds an entry; its extra data is `extra` bytes that count up from 1.
  void Add(const std::string& id, const std::string& name, uint32_t extra = 24,
           uint64_t l1_offset = kL1, uint32_t l1_size = 4) {
    ++header.snapshot_count;
    at = (at + 7) & ~uint64_t{7};
    Put64(file, kTable + at, l1_offset);
    Put32(file, kTable + at + 8, l1_size);
    Put32(file, kTable + at + 12, static_cast<uint32_t>(id.size() << 16 | name.size()));
    Put32(file, kTable + at + 16, 1000);
    Put32(file, kTable + at + 20, 2000);
    Put64(file, kTable + at + 24, 3000);
    Put32(file, kTable + at + 32, 4000);
    Put32(file, kTable + at + 36, extra);
    at += 40;
    for (uint32_t i = 0; i < extra && kTable + at + i < file.size(); ++i) {
      file[kTable + at + i] = i % 8 == 7 ? std::byte(i / 8 + 1) : std::byte{0};
    }
    at += extra;
    for (const std::string& text : {id, name}) {
      for (const char c : text) file.at(kTable + at++) = static_cast<std::byte>(c);
    }
  }

  absl::StatusOr<SnapshotTable> Load(Access access) const {
    test::MemoryFile memory(file.size());
    memory.bytes() = file;
    return LoadSnapshots(memory, header, access).Take();
  }

  // Refused for writing with `text` in the message; read with no snapshots and a warning.
  void ExpectNoTable(const std::string& text) const {
    const auto writing = Load(Access::kReadWrite);
    EXPECT_EQ(writing.status().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(writing.status().message()), HasSubstr(text));
    const auto reading = Load(Access::kRead);
    ASSERT_TRUE(reading.ok()) << reading.status();
    EXPECT_THAT(reading->snapshots, IsEmpty());
    ASSERT_EQ(reading->warnings.size(), 1u);
    EXPECT_THAT(reading->warnings[0], HasSubstr(text));
  }

  Header header;
  ImageFile file;
  uint64_t at = 0;
};

TEST(SnapshotsTest, EntriesAreReadWithAllTheirFields) {
  TableImage image;
  image.Add("1", "before the upgrade", 32);
  image.Add("22", "", 16);
  const auto table = image.Load(Access::kReadWrite);
  ASSERT_TRUE(table.ok()) << table.status();
  ASSERT_EQ(table->snapshots.size(), 2u);
  EXPECT_EQ(table->bytes, image.at);
  EXPECT_THAT(table->warnings, IsEmpty());
  const Snapshot& first = table->snapshots[0];
  EXPECT_EQ(first.id, "1");
  EXPECT_EQ(first.name, "before the upgrade");
  EXPECT_EQ(first.l1_offset, kL1);
  EXPECT_EQ(first.l1_size, 4u);
  EXPECT_EQ(first.date_seconds, 1000u);
  EXPECT_EQ(first.date_nanoseconds, 2000u);
  EXPECT_EQ(first.vm_clock_nanoseconds, 3000u);
  EXPECT_EQ(first.vm_state_size, 1u) << "the 64-bit field counts";
  EXPECT_EQ(first.disk_size, 2u);
  EXPECT_EQ(first.instructions, 3u);
  EXPECT_EQ(first.more_extra.size(), 8u);
  EXPECT_EQ(first.damage, "");
  EXPECT_EQ(table->snapshots[1].id, "22");
  EXPECT_EQ(table->snapshots[1].name, "");
  EXPECT_FALSE(table->snapshots[1].instructions);
}

TEST(SnapshotsTest, Version2NeedsNoExtraData) {
  TableImage image;
  image.header.version = 2;
  image.Add("1", "a", 0);
  const auto table = image.Load(Access::kReadWrite);
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ(table->snapshots[0].vm_state_size, 4000u);
  EXPECT_FALSE(table->snapshots[0].disk_size);
  image.header.version = 3;
  image.ExpectNoTable("version 3 needs at least 16");
}

TEST(SnapshotsTest, NoSnapshotsNeedNoTable) {
  TableImage image;
  image.header.snapshots_offset = 12345;
  const auto table = image.Load(Access::kReadWrite);
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_THAT(table->snapshots, IsEmpty());
}

TEST(SnapshotsTest, ATableIsWhereOneCanBe) {
  TableImage image;
  image.Add("1", "a");
  image.header.snapshots_offset = kTable + 512;
  image.ExpectNoTable("not a multiple of the cluster size");
  image.header.snapshots_offset = 0;
  image.ExpectNoTable("snapshot table offset 0");
  image.header.snapshots_offset = image.file.size();
  image.ExpectNoTable("past the end of the file");
  image.header.snapshots_offset = uint64_t{1} << 63;
  image.ExpectNoTable("past the end of the file");
  image.header.snapshots_offset = ~uint64_t{4095};
  image.ExpectNoTable("past the end of the file");
}

TEST(SnapshotsTest, ATableEndsWithinTheFile) {
  TableImage image;
  image.Add("1", "a");
  image.header.snapshot_count = 65536;
  image.ExpectNoTable("past the end of the file");
  image.header.snapshot_count = 4000;  // whose fixed parts would fit
  image.ExpectNoTable("version 3 needs");
  image.header.version = 2;  // zeros are entries, too
  EXPECT_TRUE(image.Load(Access::kReadWrite).ok());
  image.file.resize(kTable + 4000 * 40);
  image.ExpectNoTable("past the end of the file");
}

TEST(SnapshotsTest, ThereAreLimitsOfNumbersAndBytes) {
  TableImage image;
  image.Add("1", "a", 1025);
  image.ExpectNoTable("snapshot extra data: 1025 bytes; at most 1024");
  Put32(image.file, kTable + 36, ~uint32_t{0});
  image.ExpectNoTable("at most 1024");
  image.header.snapshot_count = 65537;
  image.ExpectNoTable("65537 snapshots");
}

TEST(SnapshotsTest, ATableHasAtMost64MiB) {
  TableImage image;
  image.file.resize(kTable + 80 * kMiB);
  const std::string name(65535, 'n');
  for (int i = 0; i < 1030; ++i) image.Add("1", name);
  image.ExpectNoTable("more than 67108864 bytes");
}

TEST(SnapshotsTest, ASnapshotWhoseTableCannotBeIsDamaged) {
  for (const auto& [offset, size, text] : std::vector<std::tuple<uint64_t, uint32_t, std::string>>{
           {kL1 + 8, 4, "not a multiple"},
           {uint64_t{1} << 40, 4, "past the end"},
           {~uint64_t{4095}, 4, "past the end"},
           {kL1, 64 * 512, "past the end"},
           {kL1, (4 << 20) + 1, "too large"},
           {kL1, ~uint32_t{0}, "too large"}}) {
    TableImage image;
    image.Add("1", "good");
    image.Add("2", "bad", 24, offset, size);
    EXPECT_EQ(image.Load(Access::kReadWrite).status().code(),
              absl::StatusCode::kFailedPrecondition);
    const auto table = image.Load(Access::kRead);
    ASSERT_TRUE(table.ok()) << table.status();
    ASSERT_EQ(table->snapshots.size(), 2u);
    EXPECT_EQ(table->snapshots[0].damage, "");
    EXPECT_THAT(table->snapshots[1].damage, HasSubstr(text));
    ASSERT_EQ(table->warnings.size(), 1u);
    EXPECT_THAT(table->warnings[0], HasSubstr("snapshot 2"));
  }
}

TEST(SnapshotsTest, AnErrorOfTheFileIsNoVerdict) {
  TableImage image;
  image.Add("1", "a");
  for (const Access access : {Access::kRead, Access::kReadWrite}) {
    test::MemoryFile memory(image.file.size());
    memory.FailNext("read", absl::DataLossError("read: Input/output error"));
    EXPECT_EQ(LoadSnapshots(memory, image.header, access).Take().status().code(),
              absl::StatusCode::kDataLoss);
  }
}

TEST(SnapshotsTest, QemusSnapshotsAreRead) {
  if (const std::string missing = MissingQemuTool(); !missing.empty()) GTEST_SKIP() << missing;
  QemuFolder qemu;
  Recipe recipe = SmallImage("");
  recipe.name = "Snapshots";
  recipe.steps.insert(recipe.steps.end(), {"img snapshot -c first %", "img snapshot -c second %"});
  const ImageFile image = qemu.Make(recipe);
  const auto parsed = Parse(image, Access::kReadWrite);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  test::MemoryFile memory(image.size());
  memory.bytes() = image;
  memory.unit = 512;  // whole sectors are read then
  const auto table = LoadSnapshots(memory, parsed->header, Access::kReadWrite).Take();
  ASSERT_TRUE(table.ok()) << table.status();
  ASSERT_EQ(table->snapshots.size(), 2u);
  EXPECT_EQ(table->snapshots[0].name, "first");
  EXPECT_EQ(table->snapshots[1].id, "2");
  EXPECT_EQ(table->snapshots[1].disk_size, kMiB);
  EXPECT_EQ(table->snapshots[1].l1_size, parsed->header.l1_size);
}

}  // namespace
}  // namespace gabion::qcow2::testing
