#include "tests/sim/sim_disk.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <vector>

#include "tests/support/random_source.h"

namespace gabion::sim {
namespace {

constexpr uint64_t kSector = SimDisk::kSector;
constexpr int kCrashes = 200;

std::vector<std::byte> Filled(std::size_t size, int value) {
  return std::vector<std::byte>(size, std::byte(value));
}

SimDisk::Call WritePart(SimDisk& disk, uint64_t offset, std::size_t size, int value) {
  const SimDisk::Call call = disk.BeginCall();
  for (uint64_t at = offset; at < offset + size;) {
    const uint64_t end = std::min(at - at % kSector + kSector, offset + size);
    disk.WriteSector(call, at, Filled(end - at, value));
    at = end;
  }
  return call;
}

void Write(SimDisk& disk, uint64_t offset, std::size_t size, int value) {
  disk.EndCall(WritePart(disk, offset, size, value));
}

void Sync(SimDisk& disk) { disk.EndSync(disk.BeginSync()); }

int At(const SimDisk& disk, uint64_t offset) {
  std::byte byte;
  disk.Read(offset, MutableBytes(&byte, 1));
  return static_cast<int>(byte);
}

// What the byte at `offset` was after each of many crashes of the disk that `prepare` makes.
template <typename Prepare>
std::set<int> AfterCrashes(uint64_t offset, Prepare prepare) {
  test::RandomSource random;
  std::set<int> seen;
  for (int i = 0; i < kCrashes; ++i) {
    SimDisk disk;
    prepare(disk);
    disk.Crash(random);
    seen.insert(At(disk, offset));
  }
  return seen;
}

TEST(SimDiskTest, WhatWasSyncedSurvives) {
  const auto prepare = [](SimDisk& disk) {
    Write(disk, 0, 4096, 1);
    Sync(disk);
  };
  EXPECT_EQ(AfterCrashes(1000, prepare), std::set<int>({1}));
}

TEST(SimDiskTest, WhatWasNotSyncedMaySurviveOrNot) {
  const auto prepare = [](SimDisk& disk) {
    Write(disk, 0, 4096, 1);
    Sync(disk);
    Write(disk, 0, 4096, 2);
    Write(disk, 0, 4096, 3);
  };
  EXPECT_EQ(AfterCrashes(1000, prepare), std::set<int>({1, 2, 3}));
}

TEST(SimDiskTest, NothingOlderThanWhatWasSyncedComesBack) {
  const auto prepare = [](SimDisk& disk) {
    Write(disk, 0, 4096, 1);
    Write(disk, 0, 4096, 2);
    Sync(disk);
    Write(disk, 0, 4096, 3);
  };
  EXPECT_EQ(AfterCrashes(1000, prepare), std::set<int>({2, 3}));
}

TEST(SimDiskTest, ASyncCoversOnlyWhatHadEndedWhenItBegan) {
  const auto prepare = [](SimDisk& disk) {
    Write(disk, 0, 512, 1);
    const SimDisk::Call open = WritePart(disk, 0, 512, 2);
    const uint64_t sync = disk.BeginSync();
    disk.EndCall(open);
    disk.EndSync(sync);
  };
  EXPECT_EQ(AfterCrashes(0, prepare), std::set<int>({1, 2}));
}

TEST(SimDiskTest, ADurableWriteIsDurableAndNoOther) {
  const auto prepare = [](SimDisk& disk) {
    Write(disk, 0, 4096, 1);
    const SimDisk::Call call = WritePart(disk, 512, 512, 2);
    disk.EndCall(call);
    disk.MakeDurable(call, Range(512, 512));
  };
  EXPECT_EQ(AfterCrashes(0, prepare), std::set<int>({0, 1}));
  EXPECT_EQ(AfterCrashes(600, prepare), std::set<int>({2}));
  EXPECT_EQ(AfterCrashes(1024, prepare), std::set<int>({0, 1}));
}

TEST(SimDiskTest, ZerosAreDurableAlsoWhereAnOpenCallHasZeroedBefore) {
  const auto prepare = [](SimDisk& disk) {
    Write(disk, 0, 512, 1);
    const SimDisk::Call open = disk.BeginCall();
    disk.Zero(open, Range(0, 512), false);
    const SimDisk::Call call = disk.BeginCall();
    disk.Zero(call, Range(0, 512), false);
    disk.EndCall(call);
    Sync(disk);
  };
  EXPECT_EQ(AfterCrashes(0, prepare), std::set<int>({0}));
}

TEST(SimDiskTest, SectorsOfOneWriteAreLostOneByOne) {
  test::RandomSource random;
  std::set<std::pair<int, int>> seen;
  for (int i = 0; i < kCrashes; ++i) {
    SimDisk disk;
    Write(disk, 0, 1024, 1);
    Sync(disk);
    Write(disk, 0, 1024, 2);
    disk.Crash(random);
    EXPECT_EQ(At(disk, 0), At(disk, 511));
    seen.insert({At(disk, 0), At(disk, 512)});
  }
  EXPECT_EQ(seen.size(), 4u);
}

TEST(SimDiskTest, APunchMayBeLost) {
  const auto prepare = [](SimDisk& disk) {
    Write(disk, 0, 8192, 1);
    Sync(disk);
    const SimDisk::Call call = disk.BeginCall();
    disk.Zero(call, Range(0, 8192), false);
    disk.EndCall(call);
    EXPECT_EQ(At(disk, 5000), 0);
  };
  EXPECT_EQ(AfterCrashes(5000, prepare), std::set<int>({0, 1}));
}

TEST(SimDiskTest, TheSizeIsTheDurableOneTheLastOrBetween) {
  test::RandomSource random;
  std::set<uint64_t> sizes;
  for (int i = 0; i < kCrashes; ++i) {
    SimDisk disk;
    Write(disk, 0, 1000, 1);
    Sync(disk);
    Write(disk, 1000, 2000, 2);
    disk.Crash(random);
    sizes.insert(disk.size());
    EXPECT_EQ(At(disk, disk.size()), 0);
  }
  EXPECT_EQ(sizes, std::set<uint64_t>({1000, 1024, 1536, 2048, 2560, 3000}));
}

TEST(SimDiskTest, ASyncedWriteIsWithinTheFileWhoeverElseMadeItLonger) {
  test::RandomSource random;
  for (int i = 0; i < kCrashes; ++i) {
    SimDisk disk;
    WritePart(disk, 4096, 512, 1);  // does not end
    Write(disk, 1024, 512, 2);
    Sync(disk);
    disk.Crash(random);
    EXPECT_GE(disk.size(), 1536u);
    EXPECT_EQ(At(disk, 1024), 2);
  }
}

TEST(SimDiskTest, WhatWasCutOffReadsAsZerosWhenTheFileGrowsAgain) {
  SimDisk disk;
  Write(disk, 0, 2000, 1);
  for (const uint64_t size : {700u, 2000u}) {
    const SimDisk::Call call = disk.BeginCall();
    disk.Resize(call, size);
    disk.EndCall(call);
  }
  EXPECT_EQ(At(disk, 699), 1);
  EXPECT_EQ(At(disk, 700), 0);
  EXPECT_EQ(At(disk, 1999), 0);
}

TEST(SimDiskTest, HolesAreWhereNothingWasWrittenOrWholeBlocksWerePunched) {
  SimDisk disk;
  const SimDisk::Call call = disk.BeginCall();
  disk.Resize(call, 100 * kGiB);
  disk.EndCall(call);
  Write(disk, 50 * kGiB, 16384, 1);
  const SimDisk::Call punch = disk.BeginCall();
  disk.Zero(punch, Range(50 * kGiB + 4096, 4096), false);
  disk.Zero(punch, Range(50 * kGiB + 8192, 100), false);
  disk.EndCall(punch);
  const std::vector<io::FileExtent> expected = {
      {Range(0, 50 * kGiB), true},
      {Range(50 * kGiB, 4096), false},
      {Range(50 * kGiB + 4096, 4096), true},
      {Range(50 * kGiB + 8192, 8192), false},
      {Range(50 * kGiB + 16384, 50 * kGiB - 16384), true}};
  EXPECT_EQ(disk.Map(Range(0, 100 * kGiB), 10), expected);
  EXPECT_EQ(disk.Map(Range(0, 100 * kGiB), 1).size(), 1u);
}

TEST(SimDiskTest, AHoleReadsAsZerosAlsoAfterACrash) {
  test::RandomSource random;
  for (int round = 0; round < 50; ++round) {
    SimDisk disk;
    for (int i = 0; i < 40; ++i) {
      const ByteRange range = random.RangeWithin(40000);
      if (random.OneIn(2)) Write(disk, range.offset.value, range.length.value, 1 + i);
      const SimDisk::Call call = disk.BeginCall();
      disk.Zero(call, random.RangeWithin(40000), random.OneIn(2));
      disk.EndCall(call);
      if (random.OneIn(5)) Sync(disk);
      if (random.OneIn(10)) disk.Crash(random);
      if (disk.size() == 0) continue;
      for (const io::FileExtent& extent : disk.Map(Range(0, disk.size()), 100)) {
        std::vector<std::byte> bytes(extent.range.length.value);
        disk.Read(extent.range.offset.value, bytes);
        EXPECT_TRUE(!extent.hole || std::count(bytes.begin(), bytes.end(), std::byte{0}) ==
                                        static_cast<std::ptrdiff_t>(bytes.size()));
      }
    }
  }
}

}  // namespace
}  // namespace gabion::sim
