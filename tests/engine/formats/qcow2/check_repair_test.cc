// What repairs refuse to do, and what happens around them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/bytes.h"
#include "engine/formats/qcow2/layout.h"
#include "engine/runtime/ready_queue.h"
#include "tests/engine/formats/qcow2/check_testing.h"
#include "tests/engine/formats/qcow2/logged_file.h"
#include "tests/engine/formats/qcow2/qemu_tools.h"
#include "tests/support/random_source.h"

namespace gabion::qcow2::testing {
namespace {

class CheckRepairTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string missing = MissingQemuTool(); !missing.empty()) GTEST_SKIP() << missing;
  }

  // Snapshots s1 and s3, bitmaps b0 and b1, compressed clusters; 4 KiB clusters.
  ImageFile Everything() {
    const auto is_it = [](const Recipe& recipe) { return recipe.name == "Everything4K"; };
    return qemu_.Make(*std::ranges::find_if(Recipes(), is_it));
  }
  ImageFile Small() { return qemu_.Make(SmallImage("")); }

  static bool Has(const CheckResult& result, FindingKind kind) {
    const auto is_kind = [&](const Finding& finding) { return finding.kind == kind; };
    return std::ranges::any_of(result.findings, is_kind);
  }

  // A repair finds the damage, and frees nothing.
  void ExpectNothingIsFreed(const ImageFile& damaged, FindingKind kind) {
    const CheckResult before = Verdict(damaged);
    EXPECT_TRUE(Has(before, kind)) << Text(before);
    for (const Repair level : {Repair::kLeaks, Repair::kAll}) {
      ImageFile repaired = damaged;
      const auto result = Check(repaired, {.repair = level});
      ASSERT_TRUE(result.ok()) << result.status();
      EXPECT_EQ(result->leaks_fixed, 0u);
      EXPECT_EQ(result->leaks, before.leaks);
      EXPECT_TRUE(Has(*result, kind)) << Text(*result);
      const Places places(damaged);
      for (uint64_t cluster = 0; cluster < damaged.size() / 4096; ++cluster) {
        EXPECT_GE(LoadRefcount(&repaired[places.refcount_block], cluster, 4),
                  LoadRefcount(&damaged[places.refcount_block], cluster, 4));
      }
    }
  }

  QemuFolder qemu_;
};

TEST_F(CheckRepairTest, WhatAnUnreadableSnapshotTableLeadsToIsKept) {
  const ImageFile image = Everything();
  ImageFile damaged = image;
  Put32(damaged, Places(image).snapshots + 36, 2000);  // extra data
  ExpectNothingIsFreed(damaged, FindingKind::kSnapshotTable);
  damaged = image;
  Put64(damaged, Places(image).snapshots, 512);  // the L1 table of one snapshot
  ExpectNothingIsFreed(damaged, FindingKind::kSnapshotTable);
}

TEST_F(CheckRepairTest, ASnapshotTableThatTheHeadersReaderLeavesOutIsNotForgotten) {
  ImageFile damaged = Everything();
  Put64(damaged, kSnapshotsOffsetField, uint64_t{1} << 40);
  const auto parsed = Parse(damaged, Access::kRead);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  ASSERT_EQ(parsed->header.snapshot_count, 0u);
  ExpectNothingIsFreed(damaged, FindingKind::kSnapshotTable);
}

TEST_F(CheckRepairTest, WhatAnUnreadableBitmapDirectoryLeadsToIsKept) {
  const ImageFile image = Everything();
  const std::size_t extension = FindExtension(image, kExtensionBitmaps);
  ASSERT_GT(extension, 0u);
  const uint64_t directory = Get64(image, extension + 16);
  ImageFile damaged = image;
  Put64(damaged, directory, 512);  // the table of the first bitmap
  ExpectNothingIsFreed(damaged, FindingKind::kBitmaps);
  damaged = image;
  Put32(damaged, directory + 20, ~uint32_t{0});  // extra data
  ExpectNothingIsFreed(damaged, FindingKind::kBitmaps);
}

TEST_F(CheckRepairTest, BitmapsThatAreNotValidAreLeaks) {
  ImageFile image = Everything();
  Put64(image, kAutoclearField, 0);
  const QemuVerdict theirs = qemu_.Check(image);
  const CheckResult ours = Verdict(image);
  EXPECT_GT(ours.leaks, 0u);
  EXPECT_EQ(ours.leaks, theirs.Field("leaks")) << theirs.Tail();
  EXPECT_EQ(ours.corruptions, 0u) << Text(ours);
}

TEST_F(CheckRepairTest, LeaksStayWhileAnL1EntryCannotBeFollowed) {
  ImageFile image = Small();
  Put64(image, Places(image).l1, kCopied | uint64_t{1} << 40);
  const ImageFile before = image;
  const auto kept = Check(image, {.repair = Repair::kLeaks});
  ASSERT_TRUE(kept.ok()) << kept.status();
  EXPECT_GT(kept->leaks, 0u);
  EXPECT_TRUE(image == before);
  const auto freed = Check(image, {.repair = Repair::kAll});
  ASSERT_TRUE(freed.ok()) << freed.status();
  EXPECT_EQ(freed->leaks, 0u);
  EXPECT_EQ(freed->corruptions, 1u) << "the entry is not dropped: " << Text(*freed);
  EXPECT_EQ(Get64(image, Places(before).l1), Get64(before, Places(before).l1));
}

// A truncated file: what is missing must not come back as zeros.
TEST_F(CheckRepairTest, RefcountsAreNotMadeAnewWhereAnEntryPoints) {
  ImageFile image = Small();
  const Places places(image);
  Put64(image, places.L2Entry(5), image.size() + 65536);
  Put64(image, places.refcount_table, 0);
  const ImageFile damaged = image;
  const auto result = Check(image, {.repair = Repair::kAll});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_TRUE(image == damaged);
  EXPECT_TRUE(Has(*result, FindingKind::kPastEnd)) << Text(*result);
  EXPECT_TRUE(Has(*result, FindingKind::kRefcountTooLow)) << Text(*result);
}

TEST_F(CheckRepairTest, MarksAreClearedWhenNothingIsLeft) {
  for (const bool reserved_bit : {false, true}) {
    ImageFile image = Small();
    const Places places(image);
    image[kIncompatibleField + 7] |= std::byte{3};  // dirty and corrupt
    image[places.refcount_block + 11] = std::byte{9};
    if (reserved_bit) image[places.l2 + 7] |= std::byte{2};
    const auto result = Check(image, {.repair = Repair::kAll});
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->corruptions, reserved_bit ? 1u : 0u) << Text(*result);
    EXPECT_EQ(result->header.dirty(), reserved_bit);
    EXPECT_EQ(result->header.corrupt(), reserved_bit);
    EXPECT_EQ(Get64(image, kIncompatibleField), reserved_bit ? 3u : 0u);
    EXPECT_EQ(qemu_.Check(image).exit_status, reserved_bit ? 2 : 0);
  }
}

TEST_F(CheckRepairTest, UnknownAutoclearBitsAreClearedBeforeAnythingElseIsWritten) {
  ImageFile image = Everything();
  image[kAutoclearField] = std::byte{0x80};
  image[Places(image).refcount_block + 11] = std::byte{9};
  const auto parsed = Parse(image, Access::kRead);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  LoggedFile file(image, 1);
  ASSERT_TRUE(CheckImage(file, parsed->header, {.repair = Repair::kLeaks}, nullptr).Take().ok());
  EXPECT_EQ(Get64(file.bytes(), kAutoclearField), kAutoclearBitmaps);
  test::RandomSource random;
  ASSERT_GT(file.steps(), 2u);
  for (std::size_t steps = 1; steps <= file.steps(); ++steps) {
    ImageFile crashed = file.AfterCrash(steps, random);
    if (Get64(crashed, kAutoclearField) == kAutoclearBitmaps) continue;
    EXPECT_TRUE(crashed == image) << steps;
  }
}

TEST_F(CheckRepairTest, RefcountsOfADirtyImageAreRebuilt) {
  for (const bool no_block : {false, true}) {
    ImageFile image = Everything();
    const Places places(image);
    image[kIncompatibleField + 7] |= std::byte{1};
    image[kCompatibleField + 7] |= std::byte{1};
    if (no_block) Put64(image, places.refcount_table, 0);
    std::fill_n(image.begin() + static_cast<std::ptrdiff_t>(places.refcount_block) + 20, 100,
                std::byte{0});
    auto parsed = Parse(image, Access::kRead);
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    ASSERT_TRUE(parsed->header.dirty());
    LoggedFile file(image, 512);
    CheckResult result;
    const absl::Status status = RebuildRefcounts(file, parsed->header, {}, nullptr, &result).Take();
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_FALSE(parsed->header.dirty());
    EXPECT_EQ(parsed->header.refcount_table_offset, Get64(file.bytes(), kRefcountTableOffsetField));
    EXPECT_GT(result.corruptions_fixed, 0u);
    const QemuVerdict after = qemu_.Check(file.bytes());
    EXPECT_EQ(after.exit_status, 0) << after.Tail();
    test::RandomSource random;
    for (std::size_t steps = 1; steps < file.steps(); ++steps) {
      const ImageFile crashed = file.AfterCrash(steps, random);
      const CheckResult then = Verdict(crashed);
      if (then.header.dirty()) continue;
      EXPECT_EQ(then.corruptions, 0u) << "clean before it is right: " << Text(then);
    }
  }
}

TEST_F(CheckRepairTest, OtherDamageDoesNotKeepRefcountsFromBeingRebuilt) {
  ImageFile image = Small();
  image[kIncompatibleField + 7] |= std::byte{1};
  image[Places(image).l2 + 7] |= std::byte{2};
  auto parsed = Parse(image, Access::kRead);
  ASSERT_TRUE(parsed.ok());
  LoggedFile file(image, 1);
  CheckResult result;
  EXPECT_TRUE(RebuildRefcounts(file, parsed->header, {}, nullptr, &result).Take().ok());
  EXPECT_EQ(result.corruptions, 1u);
  EXPECT_FALSE(parsed->header.dirty());
}

TEST_F(CheckRepairTest, AnErrorOfTheFileEndsInNoRepair) {
  ImageFile image = Small();
  image[kIncompatibleField + 7] |= std::byte{1};
  image[Places(image).refcount_block + 11] = std::byte{9};
  auto parsed = Parse(image, Access::kRead);
  ASSERT_TRUE(parsed.ok());
  LoggedFile file(image, 1);
  file.memory().FailNext("read", absl::DataLossError("read: Input/output error"));
  const auto result = CheckImage(file, parsed->header, {.repair = Repair::kAll}, nullptr).Take();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->check_errors, 1u);
  EXPECT_TRUE(Has(*result, FindingKind::kUnreadable));
  EXPECT_EQ(file.steps(), 0u);

  file.memory().FailNext("read", absl::DataLossError("read: Input/output error"));
  EXPECT_EQ(RebuildRefcounts(file, parsed->header, {}, nullptr).Take().code(),
            absl::StatusCode::kDataLoss);
  EXPECT_TRUE(parsed->header.dirty());
  EXPECT_EQ(file.steps(), 0u);

  for (const char* call : {"write", "sync"}) {
    file.memory().FailNext(call, absl::DataLossError("Input/output error"));
    EXPECT_EQ(RebuildRefcounts(file, parsed->header, {}, nullptr).Take().code(),
              absl::StatusCode::kDataLoss);
    EXPECT_TRUE(parsed->header.dirty());
  }
}

// Fails the file's next read when it is told about progress for the n-th time.
class Saboteur final : public CheckObserver {
 public:
  Saboteur(test::MemoryFile& file, int at) : file_(file), left_(at) {}
  bool OnProgress(const CheckProgress&) override {
    if (--left_ == 0) file_.FailNext("read", absl::DataLossError("read: Input/output error"));
    return true;
  }
  bool struck() const { return left_ <= 0; }

 private:
  test::MemoryFile& file_;
  int left_;
};

TEST_F(CheckRepairTest, AReadThatFailsAtAnyPlaceFreesNothing) {
  for (const bool no_block : {false, true}) {
    ImageFile image = Everything();
    const Places places(image);
    image[places.refcount_block + 11] = std::byte{9};
    if (no_block) Put64(image, places.refcount_table, 0);
    const CheckResult before = Verdict(image);
    const auto parsed = Parse(image, Access::kRead);
    ASSERT_TRUE(parsed.ok());
    for (int at = 1;; at += 3) {
      LoggedFile file(image, 1);
      Saboteur saboteur(file.memory(), at);
      const auto result =
          CheckImage(file, parsed->header, {.repair = Repair::kAll}, &saboteur).Take();
      if (!saboteur.struck()) break;
      const CheckResult after = Verdict(file.bytes());
      EXPECT_LE(after.corruptions, before.corruptions) << at << Text(after);
      // New refcounts are complete, or not the image's.
      if (Get64(file.bytes(), kRefcountTableOffsetField) != places.refcount_table) {
        EXPECT_EQ(after.corruptions, 0u) << at << Text(after);
      }
      if (result.ok() && result->check_errors > 0 && result->repaired_findings.empty()) {
        EXPECT_TRUE(file.bytes() == image) << at;
      }
    }
  }
}

TEST_F(CheckRepairTest, WhatCannotBeDoneIsRefusedByName) {
  const ImageFile image = Small();
  auto parsed = Parse(image, Access::kRead);
  ASSERT_TRUE(parsed.ok());
  test::MemoryFile file(image.size());
  file.bytes() = image;
  file.is_writable = false;
  EXPECT_EQ(
      CheckImage(file, parsed->header, {.repair = Repair::kLeaks}, nullptr).Take().status().code(),
      absl::StatusCode::kPermissionDenied);
  EXPECT_TRUE(CheckImage(file, parsed->header, {}, nullptr).Take().ok());
  Header external = parsed->header;
  external.incompatible |= kIncompatibleDataFile;
  const absl::Status status = CheckImage(file, external, {}, nullptr).Take().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("external data file"));
}

// Stops after some calls; checks what it is told.
class Observer final : public CheckObserver {
 public:
  bool OnProgress(const CheckProgress& progress) override {
    EXPECT_GE(progress.done, last_);
    EXPECT_LE(progress.done, progress.total);
    last_ = progress.done;
    total_ = progress.total;
    return ++calls_ != stop_at;
  }
  int calls() const { return calls_; }
  bool complete() const { return last_ == total_; }
  int stop_at = -1;

 private:
  uint64_t last_ = 0;
  uint64_t total_ = 0;
  int calls_ = 0;
};

TEST_F(CheckRepairTest, AnObserverFollowsAndMayStopAtAnyPlace) {
  ImageFile image = Everything();
  image[Places(image).refcount_block + 11] = std::byte{9};
  const auto parsed = Parse(image, Access::kRead);
  ASSERT_TRUE(parsed.ok());
  const CheckOptions options{.repair = Repair::kAll, .window_clusters = 64};
  LoggedFile whole(image, 1);
  Observer observer;
  ASSERT_TRUE(CheckImage(whole, parsed->header, options, &observer).Take().ok());
  ASSERT_GT(observer.calls(), 100);
  for (int stop_at = 1; stop_at < observer.calls(); stop_at += 7) {
    LoggedFile file(image, 1);
    Observer stopping;
    stopping.stop_at = stop_at;
    EXPECT_EQ(CheckImage(file, parsed->header, options, &stopping).Take().status().code(),
              absl::StatusCode::kCancelled);
    EXPECT_EQ(stopping.calls(), stop_at);
    EXPECT_LE(Verdict(file.bytes()).corruptions, 0u);
  }
}

Task<void> CountTurns(runtime::ReadyQueue& ready, const bool& done, int& turns) {
  while (!done) {
    ++turns;
    co_await ready.Yield();
  }
}

TEST_F(CheckRepairTest, OthersGetTheirTurns) {
  const ImageFile image = Everything();
  const auto parsed = Parse(image, Access::kRead);
  ASSERT_TRUE(parsed.ok());
  test::MemoryFile file(image.size());
  file.bytes() = image;
  runtime::ReadyQueue ready;
  bool done = false;
  int turns = 0;
  Task<absl::StatusOr<CheckResult>> check =
      CheckImage(file, parsed->header, {.ready = &ready}, nullptr);
  Task<void> other = CountTurns(ready, done, turns);
  while (!check.done()) ready.RunOnce();
  done = true;
  ready.RunUntilIdle();
  EXPECT_TRUE(other.done());
  EXPECT_TRUE(check.Take().ok());
  EXPECT_GT(turns, 20);
}

}  // namespace
}  // namespace gabion::qcow2::testing
