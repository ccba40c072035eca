// Random damage to the tables of images that QEMU has made.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/formats/qcow2/layout.h"
#include "tests/engine/formats/qcow2/check_testing.h"
#include "tests/engine/formats/qcow2/logged_file.h"
#include "tests/engine/formats/qcow2/qemu_tools.h"
#include "tests/support/random_source.h"

namespace gabion::qcow2::testing {
namespace {

using test::RandomSource;

// What Gabion judges more strictly than QEMU.
bool OnlyStricter(const CheckResult& result) {
  for (const Finding& finding : result.findings) {
    switch (finding.kind) {
      case FindingKind::kOverlap:
      case FindingKind::kBitmaps:
      case FindingKind::kSnapshotTable:
      case FindingKind::kL2Entry:
        continue;
      default:
        return false;
    }
  }
  return true;
}

bool Clean(const CheckResult& result) {
  return result.corruptions + result.leaks + result.check_errors == 0;
}

std::map<FindingKind, int> Kinds(const CheckResult& result) {
  std::map<FindingKind, int> kinds;
  for (const Finding& finding : result.findings) {
    // A cluster that has too low a refcount and is used for too much is listed once.
    const bool overlap = finding.kind == FindingKind::kOverlap;
    ++kinds[overlap ? FindingKind::kRefcountTooLow : finding.kind];
  }
  // They follow from refcounts, which may have become right already.
  kinds.erase(FindingKind::kCopiedFlag);
  return kinds;
}

bool TablesOverlap(const CheckResult& result) {
  return std::any_of(result.findings.begin(), result.findings.end(),
                     [](const Finding& finding) { return finding.kind == FindingKind::kOverlap; });
}

// But those flags.
int Corruptions(const CheckResult& result) {
  int count = 0;
  for (const auto& [kind, findings] : Kinds(result)) {
    if (kind != FindingKind::kLeak) count += findings;
  }
  return count;
}

// Eight-byte fields of tables: of L1, L2, refcount table and block, and of the snapshot table.
uint64_t RandomField(RandomSource& random, const ImageFile& image, const Places& places) {
  switch (random.Below(8)) {
    case 0:
      return places.l1 + 8 * random.Below(4);
    case 1:
      return places.refcount_table + 8 * random.Below(3);
    case 2:
      return places.refcount_block + 8 * random.Below(20);
    case 3:
      if (places.snapshots != 0) return places.snapshots + 8 * random.Below(5);
      return places.l2;
    default:
      return places.l2 + 8 * random.Below(std::min<uint64_t>(64, (image.size() - places.l2) / 8));
  }
}

ImageFile Damaged(RandomSource& random, const ImageFile& image) {
  const Places places(image);
  ImageFile damaged = image;
  for (uint64_t i = random.Between(1, 3); i > 0; --i) {
    const uint64_t at = RandomField(random, image, places);
    if (at + 8 > image.size()) continue;
    const uint64_t old = Get64(damaged, at);
    switch (random.Below(5)) {
      case 0:
        Put64(damaged, at, old ^ uint64_t{1} << random.Below(64));
        break;
      case 1:
        Put64(damaged, at, Get64(damaged, RandomField(random, image, places) & ~uint64_t{7}));
        break;
      case 2:
        Put64(damaged, at, 0);
        break;
      case 3:
        Put64(damaged, at,
              (random.OneIn(2) ? kCopied : 0) | (random.Below(2 * image.size()) & kOffsetMask));
        break;
      default:
        Put64(damaged, at, random.Next());
    }
  }
  return damaged;
}

std::vector<Recipe> Sources() {
  std::vector<Recipe> sources;
  for (const Recipe& recipe : Recipes()) {
    if (recipe.name == "Everything64K" || recipe.name == "Everything4K" ||
        recipe.name == "Extended16K" || recipe.name == "Refcounts2" || recipe.name == "Version2") {
      sources.push_back(recipe);
    }
  }
  return sources;
}

class CheckRandomTest : public ::testing::TestWithParam<Recipe> {
 protected:
  void SetUp() override {
    if (const std::string missing = MissingQemuTool(); !missing.empty()) GTEST_SKIP() << missing;
    image_ = qemu_.Make(GetParam());
  }

  QemuFolder qemu_;
  RandomSource random_;
  ImageFile image_;
};

TEST_P(CheckRandomTest, QemuSeesTheSameDamage) {
  for (int round = 0; round < 60; ++round) {
    SCOPED_TRACE(absl::StrCat("round ", round));
    ImageFile damaged = Damaged(random_, image_);
    if (!Parse(damaged, Access::kRead).ok()) continue;
    const CheckResult ours = Verdict(damaged, {.max_findings = 100000});
    const QemuVerdict theirs = qemu_.Check(damaged);
    if (theirs.exit_status == 1) continue;  // it could not open the image, or not finish
    const bool agreed = theirs.exit_status == 0 ? OnlyStricter(ours) : !Clean(ours);
    EXPECT_TRUE(agreed) << Text(ours) << theirs.Tail();

    const auto repaired = Check(damaged, {.repair = Repair::kAll, .max_findings = 100000});
    ASSERT_TRUE(repaired.ok()) << repaired.status();
    EXPECT_LE(Corruptions(*repaired), Corruptions(ours)) << Text(ours) << Text(*repaired);
    if (!Clean(*repaired)) continue;
    const QemuVerdict after = qemu_.Check(damaged);
    EXPECT_EQ(after.exit_status, 0) << after.Tail() << Text(ours);
  }
}

// Wherever a crash stops a repair: nothing is worse than before, and a second repair ends where the
// first would have.
TEST_P(CheckRandomTest, ACrashInTheMiddleOfARepairIsHarmless) {
  int crashes = 0;
  for (int round = 0; round < 12; ++round) {
    SCOPED_TRACE(absl::StrCat("round ", round));
    const ImageFile damaged = Damaged(random_, image_);
    const auto parsed = Parse(damaged, Access::kRead);
    if (!parsed.ok()) continue;
    const CheckResult before = Verdict(damaged, {.max_findings = 100000});
    // What is repaired in one table then changes what another says.
    if (TablesOverlap(before)) continue;
    CheckOptions options{.repair = random_.OneIn(4) ? Repair::kLeaks : Repair::kAll};
    options.window_clusters = random_.OneIn(2) ? 64 : RefcountMap::kDefaultWindow;
    const uint32_t alignments[] = {1, 512, 4096};
    LoggedFile file(damaged, random_.Pick(alignments));
    const auto whole = CheckImage(file, parsed->header, options, nullptr).Take();
    ASSERT_TRUE(whole.ok()) << whole.status();
    for (int crash = 0; crash < 10 && file.steps() > 0; ++crash, ++crashes) {
      ImageFile crashed = file.AfterCrash(random_.Between(1, file.steps()), random_);
      const CheckResult then = Verdict(crashed, {.max_findings = 100000});
      auto kinds_before = Kinds(before);
      for (const auto& [kind, count] : Kinds(then)) {
        // A file that has grown shows more refcounts of a bad block.
        if (kind == FindingKind::kLeak) continue;
        EXPECT_LE(count, kinds_before[kind]) << NameOf(kind) << "\n" << Text(before) << Text(then);
      }
      const auto again = Check(crashed, options);
      ASSERT_TRUE(again.ok()) << again.status();
      // A file that has grown may have no room left in front of such an entry.
      if (kinds_before.contains(FindingKind::kPastEnd)) continue;
      EXPECT_EQ(again->corruptions, whole->corruptions) << Text(*whole) << Text(*again);
      EXPECT_EQ(again->leaks, whole->leaks) << Text(*whole) << Text(*again);
    }
  }
  EXPECT_GT(crashes, 0) << "nothing was repaired";
}

INSTANTIATE_TEST_SUITE_P(Recipes, CheckRandomTest, ::testing::ValuesIn(Sources()),
                         [](const auto& recipe) { return recipe.param.name; });

}  // namespace
}  // namespace gabion::qcow2::testing
