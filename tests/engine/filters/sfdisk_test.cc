// What sfdisk makes of a disk, Gabion makes of it.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/bytes.h"
#include "engine/base/check.h"
#include "engine/filters/slice.h"
#include "tests/engine/filters/disk_tables.h"
#include "tests/engine/filters/filter_stand.h"
#include "tests/support_io/temp_dir.h"

namespace gabion::filters {
namespace {

using test::Disk;
using test::RandomSource;

constexpr uint64_t kSectors = 16384;

// Its output; nothing if it failed.
std::string RunSfdisk(const std::string& arguments) {
  const std::string command =
      absl::StrCat("PATH=\"$PATH:/usr/sbin:/sbin\" LC_ALL=C sfdisk ", arguments, " 2>/dev/null");
  FILE* pipe = popen(command.c_str(), "r");
  CHECK(pipe != nullptr);
  std::string output;
  char buffer[4096];
  std::size_t got;
  while ((got = fread(buffer, 1, sizeof(buffer), pipe)) > 0) output.append(buffer, got);
  const int status = pclose(pipe);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? output : "";
}

struct Partition {
  ByteRange range;
  bool extended = false;
};

// The lines of `sfdisk --dump`: "PATH1 : start= 2048, size= 4096, type=83".
std::map<uint32_t, Partition> ParseDump(const std::string& dump, const std::string& path) {
  std::map<uint32_t, Partition> partitions;
  std::istringstream lines(dump);
  for (std::string line; std::getline(lines, line);) {
    if (line.rfind(path, 0) != 0 || line.find("start=") == std::string::npos) continue;
    const auto number = std::strtoul(line.c_str() + path.size(), nullptr, 10);
    const auto value = [&line](const char* key) {
      return std::strtoull(line.c_str() + line.find(key) + std::string(key).size(), nullptr, 10);
    };
    const std::string type = line.substr(line.find("type=") + 5);
    partitions[static_cast<uint32_t>(number)] =
        Partition{Range(value("start=") * 512, value("size=") * 512),
                  type == "5" || type == "f" || type == "85"};
  }
  return partitions;
}

class SfdiskTest : public testing::Test {
 protected:
  void SetUp() override {
    if (RunSfdisk("--version").empty()) GTEST_SKIP() << "sfdisk is not installed";
  }

  void WriteDisk(const Disk& disk) {
    std::ofstream file(path_, std::ios::binary | std::ios::trunc);
    const std::string_view text = AsText(disk);
    file.write(text.data(), static_cast<std::streamsize>(text.size()));
  }
  Disk ReadDisk() {
    std::ifstream file(path_, std::ios::binary);
    std::stringstream text;
    text << file.rdbuf();
    const std::string bytes = text.str();
    const Bytes view = AsBytes(bytes);
    return Disk(view.begin(), view.end());
  }

  // Has sfdisk make the table that `script` describes; false if it refuses.
  bool MakeTable(const std::string& script) {
    WriteDisk(Disk(kSectors * 512));
    std::ofstream(script_) << script;
    return !RunSfdisk(absl::StrCat("--no-reread --no-tell-kernel ", path_, " < ", script_)).empty();
  }

  std::map<uint32_t, Partition> Dump() { return ParseDump(RunSfdisk("--dump " + path_), path_); }

  // Compares every number; returns how many partitions there are.
  std::size_t Compare(const std::string& context) {
    const Disk disk = ReadDisk();
    test::MemoryNode node({.size = disk.size()});
    node.Put(0, disk);
    const std::map<uint32_t, Partition> truth = Dump();
    for (uint32_t number = 1; number <= 140; ++number) {
      const absl::StatusOr<ByteRange> found = FindPartition(node, number).Take();
      const auto expected = truth.find(number);
      if (expected == truth.end() || expected->second.extended) {
        EXPECT_EQ(found.status().code(), absl::StatusCode::kNotFound) << number << "\n" << context;
        continue;
      }
      EXPECT_TRUE(found.ok()) << number << ": " << found.status() << "\n" << context;
      EXPECT_EQ(found.value_or(ByteRange{}), expected->second.range) << number << "\n" << context;
    }
    return truth.size();
  }

  test::TempDir directory_;
  const std::string path_ = directory_.File("disk.img-");
  const std::string script_ = directory_.File("script");
};

// Lines for partitions one behind the other from `first` on, up to `end`, in sectors.
std::string Lines(RandomSource& random, uint64_t first, uint64_t end, uint64_t most, uint64_t gap,
                  std::string_view type) {
  std::string lines;
  for (uint64_t n = 0; n < most; ++n) {
    const uint64_t start = first + random.Between(gap, gap + 300);
    const uint64_t size = random.Between(1, 900);
    if (start + size > end) break;
    absl::StrAppend(&lines, "start=", start, ", size=", size, ", type=", std::string(type), "\n");
    first = start + size;
  }
  return lines;
}

TEST_F(SfdiskTest, Gpt) {
  RandomSource random;
  std::size_t partitions = 0;
  for (int round = 0; round < 15; ++round) {
    const std::string script =
        absl::StrCat("label: gpt\nfirst-lba: 34\n",
                     Lines(random, 40, kSectors - 40, random.Below(20), 0, "linux"));
    ASSERT_TRUE(MakeTable(script)) << script;
    partitions += Compare(script);
  }
  EXPECT_GT(partitions, 10u);
}

TEST_F(SfdiskTest, AGptWithADamagedPrimary) {
  RandomSource random;
  std::size_t partitions = 0;
  for (int round = 0; round < 15; ++round) {
    const std::string script =
        absl::StrCat("label: gpt\nfirst-lba: 34\n",
                     Lines(random, 40, kSectors - 40, random.Between(1, 20), 0, "linux"));
    ASSERT_TRUE(MakeTable(script)) << script;
    Disk disk = ReadDisk();
    disk[512 + random.Below(92)] ^= std::byte{0x10};
    WriteDisk(disk);
    partitions += Compare(script);
  }
  EXPECT_GT(partitions, 10u);
}

TEST_F(SfdiskTest, Mbr) {
  RandomSource random;
  std::size_t partitions = 0;
  for (int round = 0; round < 30; ++round) {
    const uint64_t extended = 6000 + random.Below(100);
    const uint64_t length = random.Between(2000, 9000);
    std::string script = absl::StrCat("label: dos\n", Lines(random, 1, 5900, 3, 0, "83"));
    if (random.OneIn(4)) {
      absl::StrAppend(&script, Lines(random, 15200, kSectors, 1, 0, "7"));
    } else {
      absl::StrAppend(&script, "start=", extended, ", size=", length, ", type=f\n",
                      Lines(random, extended, extended + length, random.Below(30), 2, "83"));
    }
    ASSERT_TRUE(MakeTable(script)) << script;
    partitions += Compare(script);
  }
  EXPECT_GT(partitions, 30u);
}

// Tables written by hand, which sfdisk reads, too.
TEST_F(SfdiskTest, HandWrittenTables) {
  Disk mbr(kSectors * 512);
  test::PutMbrEntry(mbr, 0, 1, 0x83, 64, 100);
  test::PutMbrEntry(mbr, 0, 2, 0x05, 200, 600);
  test::PutMbrEntry(mbr, 200, 1, 0x05, 100, 110);  // a record without a partition
  test::PutMbrEntry(mbr, 300, 1, 0x82, 10, 100);   // the partition in another entry
  test::PutMbrEntry(mbr, 300, 0, 0x05, 400, 20);
  test::PutMbrEntry(mbr, 600, 0, 0x83, 1, 199);
  WriteDisk(mbr);
  EXPECT_EQ(Compare("mbr"), 4u);

  Disk gpt(kSectors * 512);
  test::PutGpt(gpt, {.entries = 256}, kSectors - 1,
               {{1, 200, 299}, {3, 300, 300}, {129, 900, 950}});
  WriteDisk(gpt);
  EXPECT_EQ(Compare("gpt"), 3u);
}

}  // namespace
}  // namespace gabion::filters
