#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "engine/filters/partitions/crc32.h"
#include "engine/filters/partitions/search.h"
#include "engine/filters/slice.h"
#include "tests/engine/filters/disk_tables.h"
#include "tests/engine/filters/filter_stand.h"

namespace gabion::partitions {
namespace {

using absl::StatusCode;
using test::Disk;
using test::GptLayout;

constexpr uint64_t kMostReads = 1025;

// What a search read, besides what it found.
struct Reading {
  uint64_t bytes = 0;
  uint64_t calls = 0;
};

absl::StatusOr<ByteRange> Find(const Disk& disk, uint32_t number, Reading* reading = nullptr) {
  Search search(ByteCount{disk.size()}, number);
  Reading ignored;
  Reading& count = reading != nullptr ? *reading : ignored;
  while (search.wanted().has_value()) {
    const ByteRange range = *search.wanted();
    EXPECT_LE(range.end().value, disk.size());
    count.bytes += range.length.value;
    if (++count.calls > kMostReads) {
      ADD_FAILURE() << "reads without end";
      return absl::InternalError("reads without end");
    }
    search.Feed(Bytes(disk).subspan(range.offset.value, range.length.value));
  }
  return search.result();
}

StatusCode CodeOf(const Disk& disk, uint32_t number) { return Find(disk, number).status().code(); }

void Flip(Disk& disk, uint64_t at) { disk.at(at) ^= std::byte{0x40}; }

TEST(Crc32Test, KnownValues) {
  EXPECT_EQ(Crc32({}), 0u);
  const std::string digits = "123456789";
  const Bytes bytes = std::as_bytes(std::span<const char>(digits));
  EXPECT_EQ(Crc32(bytes), 0xcbf43926u);
  EXPECT_EQ(Crc32(bytes.subspan(4), Crc32(bytes.first(4))), 0xcbf43926u);
}

TEST(SearchTest, WhatHasNoTableHasNoPartition) {
  EXPECT_EQ(CodeOf(Disk(0), 1), StatusCode::kNotFound);
  EXPECT_EQ(CodeOf(Disk(511), 1), StatusCode::kNotFound);
  EXPECT_EQ(CodeOf(Disk(512), 1), StatusCode::kNotFound);
  EXPECT_EQ(CodeOf(Disk(1 << 20), 1), StatusCode::kNotFound);
}

TEST(SearchTest, TheFirstSectorOfAFileSystemIsNoTable) {
  Disk disk(1 << 20);
  for (std::size_t at = 0; at < 510; ++at) disk[at] = std::byte{0x6f};  // a boot program's text
  test::SignRecord(disk, 0);
  EXPECT_EQ(CodeOf(disk, 1), StatusCode::kNotFound);
}

// ---- MBR

constexpr uint64_t kSector = 512;

ByteRange Sectors(uint64_t first, uint64_t count) {
  return Range(first * kSector, count * kSector);
}

// Sectors: primary 1 at 64, extended as 2 from 200 to 799 with logical 5 to 7, primary 4 at 900.
Disk MbrDisk() {
  Disk disk(1000 * kSector);
  test::PutMbrEntry(disk, 0, 0, 0x83, 64, 100);
  test::PutMbrEntry(disk, 0, 1, 0x05, 200, 600);
  test::PutMbrEntry(disk, 0, 3, 0x07, 900, 100);
  test::PutMbrEntry(disk, 200, 0, 0x83, 8, 50);
  test::PutMbrEntry(disk, 200, 1, 0x05, 100, 110);
  test::PutMbrEntry(disk, 300, 0, 0x82, 10, 100);
  test::PutMbrEntry(disk, 300, 1, 0x05, 400, 20);
  test::PutMbrEntry(disk, 600, 0, 0x83, 1, 199);
  return disk;
}

TEST(MbrSearchTest, PrimaryAndLogicalPartitions) {
  const Disk disk = MbrDisk();
  EXPECT_EQ(*Find(disk, 1), Sectors(64, 100));
  EXPECT_EQ(*Find(disk, 4), Sectors(900, 100)) << "up to the last sector";
  EXPECT_EQ(*Find(disk, 5), Sectors(208, 50));
  EXPECT_EQ(*Find(disk, 6), Sectors(310, 100)) << "counts from its own record";
  EXPECT_EQ(*Find(disk, 7), Sectors(601, 199)) << "links count from the first one";
}

TEST(MbrSearchTest, NumbersWithoutAPartition) {
  const Disk disk = MbrDisk();
  const uint32_t numbers[] = {2, 3, 8, 1024, ~0U};
  for (const uint32_t number : numbers) {
    EXPECT_EQ(CodeOf(disk, number), StatusCode::kNotFound) << number;
  }
  Disk primary_only(1000 * kSector);
  test::PutMbrEntry(primary_only, 0, 0, 0x83, 64, 100);
  EXPECT_EQ(CodeOf(primary_only, 5), StatusCode::kNotFound);
}

TEST(MbrSearchTest, ARecordWithoutAPartitionTakesNoNumber) {
  Disk disk = MbrDisk();
  test::PutMbrEntry(disk, 200, 0, 0, 0, 0);
  EXPECT_EQ(*Find(disk, 5), Sectors(310, 100));
}

TEST(MbrSearchTest, APartitionBehindTheEndIsDataLoss) {
  Disk disk = MbrDisk();
  test::PutMbrEntry(disk, 0, 3, 0x07, 900, 101);
  EXPECT_EQ(CodeOf(disk, 4), StatusCode::kDataLoss);
  test::PutMbrEntry(disk, 0, 3, 0x07, 0xffffffff, 0xffffffff);
  EXPECT_EQ(CodeOf(disk, 4), StatusCode::kDataLoss);
  test::PutMbrEntry(disk, 600, 0, 0x83, 0xffffffff, 0xffffffff);
  EXPECT_EQ(CodeOf(disk, 7), StatusCode::kDataLoss);
}

TEST(MbrSearchTest, AChainThatLoopsIsDataLoss) {
  Disk disk = MbrDisk();
  test::PutMbrEntry(disk, 600, 1, 0x05, 100, 1);
  EXPECT_EQ(CodeOf(disk, 8), StatusCode::kDataLoss);
  EXPECT_TRUE(Find(disk, 7).ok()) << "what comes before is there";
  test::PutMbrEntry(disk, 600, 1, 0x05, 400, 1);
  EXPECT_EQ(CodeOf(disk, 8), StatusCode::kDataLoss) << "to itself";
}

TEST(MbrSearchTest, AChainThatLeadsNowhereIsDataLoss) {
  Disk disk = MbrDisk();
  test::PutMbrEntry(disk, 600, 1, 0x05, 500, 1);
  EXPECT_EQ(CodeOf(disk, 8), StatusCode::kDataLoss) << "to a sector that is no record";
  test::PutMbrEntry(disk, 600, 1, 0x05, 0xffffff00, 1);
  EXPECT_EQ(CodeOf(disk, 8), StatusCode::kDataLoss) << "beyond the disk";
}

TEST(MbrSearchTest, AChainHasABound) {
  Disk disk(3000 * kSector);
  test::PutMbrEntry(disk, 0, 0, 0x0f, 1, 2999);
  for (uint32_t sector = 1; sector < 2999; ++sector) {
    test::PutMbrEntry(disk, sector, 1, 0x0f, sector, 1);
  }
  Reading reading;
  EXPECT_EQ(Find(disk, 5, &reading).status().code(), StatusCode::kDataLoss);
  EXPECT_LE(reading.calls, kMostReads);
}

TEST(MbrSearchTest, AnOldGptHeaderMakesNoGpt) {
  Disk disk(1000 * kSector);
  test::PutGpt(disk, {}, 999, {{1, 100, 199}});
  test::PutMbrEntry(disk, 0, 0, 0x83, 64, 100);
  EXPECT_EQ(*Find(disk, 1), Sectors(64, 100));
}

TEST(MbrSearchTest, AProtectiveEntryBeginsAtTheGptHeader) {
  Disk disk(1000 * kSector);
  test::PutGpt(disk, {}, 999, {{1, 100, 199}});
  test::PutMbrEntry(disk, 0, 0, 0xee, 64, 100);
  EXPECT_EQ(*Find(disk, 1), Sectors(64, 100));
}

// ---- GPT

constexpr uint64_t kSectors = 4000;

Disk GptDisk(const GptLayout& layout) {
  Disk disk(kSectors * layout.sector_bytes);
  test::PutGpt(disk, layout, kSectors - 1, {{1, 200, 299}, {3, 300, 300}, {128, 1000, 3500}});
  return disk;
}

class GptSearchTest : public testing::TestWithParam<uint64_t> {
 protected:
  const uint64_t sector_ = GetParam();
  const GptLayout layout_{.sector_bytes = sector_};
  Disk disk_ = GptDisk(layout_);

  ByteRange Sectors(uint64_t first, uint64_t count) const {
    return Range(first * sector_, count * sector_);
  }
  void Wipe(uint64_t at) { std::memset(&disk_.at(at), 0, sector_); }
  void DamagePrimary() { Flip(disk_, sector_ + 50); }
  void DamageBackup() { Flip(disk_, (kSectors - 1) * sector_ + 50); }
  void Reseal() {
    test::SealGptHeader(disk_, layout_, 1);
    DamageBackup();
  }
};

INSTANTIATE_TEST_SUITE_P(SectorBytes, GptSearchTest, testing::Values(512, 4096));

TEST_P(GptSearchTest, PartitionsAndUnusedEntries) {
  EXPECT_EQ(*Find(disk_, 1), Sectors(200, 100));
  EXPECT_EQ(*Find(disk_, 3), Sectors(300, 1));
  EXPECT_EQ(*Find(disk_, 128), Sectors(1000, 2501));
  EXPECT_EQ(CodeOf(disk_, 2), StatusCode::kNotFound);
  EXPECT_EQ(CodeOf(disk_, 129), StatusCode::kNotFound);
  EXPECT_EQ(CodeOf(disk_, ~0U), StatusCode::kNotFound);
}

TEST_P(GptSearchTest, TheBackupStandsInForADamagedPrimaryHeader) {
  DamagePrimary();
  EXPECT_EQ(*Find(disk_, 1), Sectors(200, 100));
  DamageBackup();
  EXPECT_EQ(CodeOf(disk_, 1), StatusCode::kDataLoss);
}

TEST_P(GptSearchTest, TheBackupStandsInForAnOverwrittenPrimaryHeader) {
  Wipe(sector_);
  EXPECT_EQ(*Find(disk_, 1), Sectors(200, 100));
  Wipe(disk_.size() - sector_);
  EXPECT_EQ(CodeOf(disk_, 1), StatusCode::kDataLoss) << "the MBR says that there is one";
}

TEST_P(GptSearchTest, TheBackupStandsInForDamagedEntries) {
  Flip(disk_, 2 * sector_ + 32);
  EXPECT_EQ(*Find(disk_, 1), Sectors(200, 100));
  Flip(disk_, (kSectors - 1 - layout_.EntrySectors()) * sector_ + 32);
  EXPECT_EQ(CodeOf(disk_, 1), StatusCode::kDataLoss);
}

TEST_P(GptSearchTest, TheBackupOfADiskThatHasGrownIsWhereThePrimarySays) {
  disk_.resize(2 * kSectors * sector_);
  EXPECT_EQ(*Find(disk_, 1), Sectors(200, 100));
  Flip(disk_, 2 * sector_ + 32);
  EXPECT_EQ(*Find(disk_, 1), Sectors(200, 100));
  DamagePrimary();
  EXPECT_EQ(CodeOf(disk_, 1), StatusCode::kDataLoss) << "nobody says where it is";
}

TEST_P(GptSearchTest, AHeaderThatNamesItselfAsItsBackupIsReadOnce) {
  test::PutLe<uint64_t>(disk_, sector_ + 32, 1);
  test::SealGptHeader(disk_, layout_, 1);
  Flip(disk_, 2 * sector_ + 32);
  Reading reading;
  EXPECT_EQ(*Find(disk_, 1, &reading), Sectors(200, 100)) << "by the header at the end";
  EXPECT_LE(reading.calls, 1u + 2 * 6);
  DamageBackup();
  EXPECT_EQ(CodeOf(disk_, 1), StatusCode::kDataLoss);
}

TEST_P(GptSearchTest, ADiskThatHasShrunkIsDataLoss) {
  disk_.resize(3000 * sector_);
  EXPECT_EQ(CodeOf(disk_, 128), StatusCode::kDataLoss);
}

TEST_P(GptSearchTest, OddBytesAtTheEndAreNoSector) {
  disk_.resize(disk_.size() + sector_ - 1);
  DamagePrimary();
  EXPECT_EQ(*Find(disk_, 1), Sectors(200, 100));
}

struct BadField {
  const char* what;
  uint64_t at;
  int bytes;
  uint64_t value;
};
constexpr BadField kBadFields[] = {
    {"revision", 8, 4, 0x00020000},
    {"header bytes", 12, 4, 91},
    {"header bytes", 12, 4, 4097},
    {"header bytes", 12, 4, 0xffffffff},
    {"own sector", 24, 8, 2},
    {"first usable above last", 40, 8, 3999},
    {"last usable behind the end", 48, 8, 4000},
    {"last usable", 48, 8, ~0ULL},
    {"entries in the MBR", 72, 8, 0},
    {"entries in the header", 72, 8, 1},
    {"entries behind the end", 72, 8, 4000},
    {"entries across the end", 72, 8, 3999},
    {"entries far away", 72, 8, ~0ULL},
    {"no entries", 80, 4, 0},
    {"too many entries", 80, 4, 1025},
    {"too many entries", 80, 4, 0xffffffff},
    {"entries too short", 84, 4, 64},
    {"entries too long", 84, 4, 8192},
    {"entries of an odd length", 84, 4, 192},
    {"entries of no length", 84, 4, 0},
    {"checksum of the entries", 88, 4, 1},
};

TEST_P(GptSearchTest, AHeaderThatContradictsItselfIsDataLoss) {
  for (const BadField& bad : kBadFields) {
    disk_ = GptDisk(layout_);
    for (int i = 0; i < bad.bytes; ++i) {
      test::PutLe<uint8_t>(disk_, sector_ + bad.at + static_cast<uint64_t>(i),
                           static_cast<uint8_t>(bad.value >> (8 * i)));
    }
    Reseal();
    Reading reading;
    EXPECT_EQ(Find(disk_, 1, &reading).status().code(), StatusCode::kDataLoss)
        << bad.what << " " << bad.value;
    EXPECT_LT(reading.bytes, 200000u) << bad.what;
  }
}

TEST_P(GptSearchTest, APartitionOutsideOfWhatPartitionsMayUseIsDataLoss) {
  const std::pair<uint64_t, uint64_t> wrong[] = {{300, 299},   {1, 299},       {200, kSectors - 1},
                                                 {200, ~0ULL}, {~0ULL, ~0ULL}, {0, 0}};
  for (const auto& [first, last] : wrong) {
    Disk disk(kSectors * sector_);
    test::PutGpt(disk, layout_, kSectors - 1, {{1, first, last}});
    EXPECT_EQ(CodeOf(disk, 1), StatusCode::kDataLoss) << first << " to " << last;
  }
}

TEST(GptSearchLayoutTest, EntriesOfAllLengthsAndNumbers) {
  const GptLayout layouts[] = {
      {512, 4, 128}, {512, 1024, 128}, {512, 5, 256}, {4096, 16, 4096}, {512, 1, 1024}};
  for (const GptLayout& layout : layouts) {
    Disk disk(kSectors * layout.sector_bytes);
    test::PutGpt(disk, layout, kSectors - 1, {{layout.entries, 2000, 2099}});
    const auto last = static_cast<uint32_t>(layout.entries);
    EXPECT_EQ(*Find(disk, last), Range(2000 * layout.sector_bytes, 100 * layout.sector_bytes));
    EXPECT_EQ(CodeOf(disk, last + 1), StatusCode::kNotFound);
  }
}

TEST(GptSearchLayoutTest, EntriesInTheBootRecordAreDataLoss) {
  const GptLayout layout{.entries = 4};
  Disk disk(kSectors * kSector);
  test::PutMbrEntry(disk, 0, 0, 0xee, 1, 0xffffffff);
  test::PutGptHeader(disk, layout, 1, kSectors - 1, 0, kSectors - 1);
  EXPECT_EQ(CodeOf(disk, 1), StatusCode::kDataLoss);
}

// ---- damage

Disk PickDisk(test::RandomSource& random) {
  switch (random.Below(3)) {
    case 0:
      return MbrDisk();
    case 1:
      return GptDisk({.sector_bytes = 512});
    default:
      return GptDisk({.sector_bytes = 4096, .entries = 130});
  }
}

// Places that the search looks at.
uint64_t PickPlace(test::RandomSource& random, const Disk& disk) {
  const uint64_t bases[] = {0,
                            446,
                            512,
                            1024,
                            4096,
                            8192,
                            200 * kSector,
                            300 * kSector,
                            600 * kSector,
                            disk.size() - 512,
                            disk.size() - 4096};
  return std::min<uint64_t>(disk.size() - 1, random.Pick(bases) + random.Below(600));
}

TEST(SearchPropertyTest, DamageIsNeverFatalAndTheReadingIsBounded) {
  test::RandomSource random;
  uint64_t found = 0;
  uint64_t failed = 0;
  for (int round = 0; round < 400; ++round) {
    Disk disk = PickDisk(random);
    for (uint64_t n = random.Between(1, 30); n > 0; --n) {
      disk[PickPlace(random, disk)] = static_cast<std::byte>(random.Below(256));
    }
    // Headers that match their checksums, so that what they say is looked at.
    if (random.OneIn(2)) test::SealGptHeader(disk, {}, 1);
    if (random.OneIn(2)) test::SealGptHeader(disk, {.sector_bytes = 4096}, 1);
    if (random.OneIn(4)) disk.resize(random.Between(1, disk.size()));
    const uint32_t numbers[] = {1, 3, 4, 5, 6, 7, 128, 200};
    for (const uint32_t number : numbers) {
      Reading reading;
      const absl::StatusOr<ByteRange> range = Find(disk, number, &reading);
      EXPECT_LE(reading.bytes, 6 * (4096 * 1024 + 4096) + 512u);
      ++(range.ok() ? found : failed);
      if (!range.ok()) continue;
      EXPECT_GT(range->length.value, 0u);
      EXPECT_LE(range->end().value, disk.size());
    }
  }
  EXPECT_GT(found, 20u);
  EXPECT_GT(failed, 20u);
}

}  // namespace
}  // namespace gabion::partitions

namespace gabion::filters {
namespace {

TEST(FindPartitionTest, ReadsWhatTheSearchWantsAndTellsWhatItFinds) {
  test::FilterStand stand;
  test::RandomSource random;
  test::Disk disk(2 << 20);
  test::PutGpt(disk, {}, 4095, {{2, 100, 199}});
  test::MemoryNode node({.size = disk.size()});
  node.Put(0, disk);
  node.SetDeferred(stand.ready, random);
  EXPECT_EQ(*stand.Finish(FindPartition(node, 2)), Range(51200, 51200));
  EXPECT_EQ(stand.Finish(FindPartition(node, 1)).status().code(), absl::StatusCode::kNotFound);
  node.SetFault([](test::NodeCall, ByteRange) { return absl::InternalError("bad"); });
  EXPECT_EQ(stand.Finish(FindPartition(node, 2)).status(), absl::InternalError("bad"));
}

}  // namespace
}  // namespace gabion::filters
