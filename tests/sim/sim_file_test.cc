#include "tests/sim/sim_file.h"

#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <vector>

#include "tests/sim/sim_world.h"

namespace gabion::sim {
namespace {

std::vector<std::byte> Filled(std::size_t size, int value) {
  return std::vector<std::byte>(size, std::byte(value));
}

// A world with one disk of a size, and a file that is open on it.
struct Machine {
  explicit Machine(uint64_t seed, uint64_t size = 8192, SimFileOptions options = {})
      : world(seed), disk(world.NewDisk()), file(OpenSimFile(world, disk, options)) {
    EXPECT_TRUE(world.Finish(file->Resize({size})).ok());
    EXPECT_TRUE(world.Finish(file->Sync()).ok());
  }

  int At(uint64_t offset) const {
    std::byte byte;
    disk.Read(offset, MutableBytes(&byte, 1));
    return static_cast<int>(byte);
  }

  SimWorld world;
  SimDisk& disk;
  std::unique_ptr<io::File> file;
};

TEST(SimFileTest, ReadsWhatWasWritten) {
  Machine machine(1);
  const std::vector<std::byte> bytes = Filled(3000, 7);
  EXPECT_TRUE(machine.world.Finish(machine.file->Write({100}, bytes, false)).ok());
  std::vector<std::byte> back(3000);
  EXPECT_TRUE(machine.world.Finish(machine.file->Read({100}, back)).ok());
  EXPECT_EQ(back, bytes);
}

TEST(SimFileTest, ReadsAndWritesAtTheSameTimeMixBySector) {
  std::set<std::vector<int>> seen;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    Machine machine(seed, 1536);
    const std::vector<std::byte> bytes = Filled(1536, 1);
    std::vector<std::byte> back(1536);
    Task<absl::Status> write = machine.file->Write({0}, bytes, false);
    Task<absl::Status> read = machine.file->Read({0}, back);
    EXPECT_TRUE(machine.world.Finish(std::move(read)).ok());
    EXPECT_TRUE(machine.world.Finish(std::move(write)).ok());
    std::vector<int> sectors;
    for (std::size_t at = 0; at < back.size(); at += 512) {
      EXPECT_EQ(back[at], back[at + 511]);
      sectors.push_back(static_cast<int>(back[at]));
    }
    seen.insert(sectors);
  }
  EXPECT_GT(seen.size(), 4u);
}

TEST(SimFileTest, ACrashTearsTheWriteThatIsInFlight) {
  std::set<int> written;
  for (uint64_t seed = 0; seed < 300; ++seed) {
    Machine machine(seed);
    const std::vector<std::byte> bytes = Filled(2048, 1);
    machine.world.CrashIn(seed % 4);
    const absl::Status status = machine.world.Finish(machine.file->Write({0}, bytes, true));
    int count = 0;
    for (uint64_t at = 0; at < 2048; at += 512) count += machine.At(at);
    EXPECT_TRUE(!status.ok() || count == 4);
    if (machine.world.crashed()) written.insert(count);
    machine.world.CancelCrash();
  }
  EXPECT_EQ(written, std::set<int>({0, 1, 2, 3, 4}));
}

TEST(SimFileTest, AfterACrashEveryCallFailsAndNothingReachesTheDisk) {
  Machine machine(1);
  machine.world.CrashNow();
  const std::vector<std::byte> bytes = Filled(512, 1);
  std::vector<std::byte> back(512);
  EXPECT_FALSE(machine.world.Finish(machine.file->Write({0}, bytes, true)).ok());
  EXPECT_FALSE(machine.world.Finish(machine.file->Read({0}, back)).ok());
  EXPECT_FALSE(machine.world.Finish(machine.file->Sync()).ok());
  EXPECT_FALSE(machine.world.Finish(machine.file->Close()).ok());
  EXPECT_EQ(machine.At(0), 0);
  machine.world.Restart();
  const std::unique_ptr<io::File> again = OpenSimFile(machine.world, machine.disk, {});
  EXPECT_TRUE(machine.world.Finish(again->Write({0}, bytes, true)).ok());
  EXPECT_EQ(machine.At(0), 1);
}

TEST(SimFileTest, ASyncThatFailedIsNotForgotten) {
  Machine machine(1);
  machine.world.faults().sync = 1;
  EXPECT_TRUE(absl::IsDataLoss(machine.world.Finish(machine.file->Sync())));
  machine.world.faults() = {};
  EXPECT_TRUE(absl::IsDataLoss(machine.world.Finish(machine.file->Sync())));
}

TEST(SimFileTest, OnlyWritesThatMakeItLongerFindNoSpace) {
  Machine machine(1);
  machine.world.faults().no_space = 1;
  const std::vector<std::byte> bytes = Filled(512, 1);
  EXPECT_TRUE(machine.world.Finish(machine.file->Write({0}, bytes, false)).ok());
  EXPECT_TRUE(
      absl::IsResourceExhausted(machine.world.Finish(machine.file->Write({8000}, bytes, false))));
}

TEST(SimFileTest, WhatItCannotZeroItSays) {
  Machine machine(1, 8192, {.can_punch = false, .can_keep_allocated = false});
  for (const io::ZeroMode mode : {io::ZeroMode::kPunch, io::ZeroMode::kKeepAllocated}) {
    EXPECT_TRUE(
        absl::IsUnimplemented(machine.world.Finish(machine.file->Zero(Range(0, 512), mode))));
  }
}

using SimFileDeathTest = testing::Test;

TEST(SimFileDeathTest, BrokenContractsEndTheProcess) {
  const std::vector<std::byte> bytes = Filled(100, 1);
  EXPECT_DEATH(
      {
        Machine machine(1, 8192, {.alignment = 512});
        machine.world.Finish(machine.file->Write({0}, bytes, false)).IgnoreError();
      },
      "IsAlignedWithin");
  EXPECT_DEATH(
      {
        Machine machine(1);
        machine.world.Finish(machine.file->Close()).IgnoreError();
        machine.world.Finish(machine.file->Sync()).IgnoreError();
      },
      "closed_");
  EXPECT_DEATH(
      {
        Machine machine(1);
        Task<absl::Status> sync = machine.file->Sync();
        machine.world.Finish(machine.file->Resize({1})).IgnoreError();
      },
      "alone");
}

}  // namespace
}  // namespace gabion::sim
