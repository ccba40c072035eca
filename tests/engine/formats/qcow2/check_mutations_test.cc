// One thing is broken in an image that QEMU has made: what the check finds, whether QEMU finds the
// same, and what is left after a repair.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/formats/qcow2/layout.h"
#include "tests/engine/formats/qcow2/check_testing.h"
#include "tests/engine/formats/qcow2/qemu_tools.h"

namespace gabion::qcow2::testing {
namespace {

struct Damage {
  std::string name;  // a GoogleTest name
  std::string options;
  void (*change)(ImageFile& image, const Places& places);
  uint64_t corruptions;
  uint64_t leaks;
  FindingKind kind;  // one of the findings
  enum class Qemu { kSame, kOtherCounts, kSeesNothing } qemu = Qemu::kSame;
  uint64_t left = 0;  // corruptions after Repair::kAll
  bool qemu_clean_after = true;
};
using Qemu = Damage::Qemu;

void PrintTo(const Damage& damage, std::ostream* out) { *out << damage.name; }

constexpr uint64_t kCluster = 65536;
constexpr uint64_t kFarAway = uint64_t{1} << 40;

void Change(ImageFile& image, uint64_t at, uint64_t set, uint64_t clear = 0) {
  Put64(image, at, (Get64(image, at) & ~clear) | set);
}

const std::vector<Damage> kDamages = {
    {"L1ReservedBit", "", [](ImageFile& i, const Places& p) { Change(i, p.l1, 1); }, 1, 0,
     FindingKind::kL1Entry, Qemu::kSame, 1, false},
    {"L1PastTheEnd", "", [](ImageFile& i, const Places& p) { Put64(i, p.l1, kCopied | kFarAway); },
     1, 4, FindingKind::kPastEnd, Qemu::kOtherCounts, 1, false},
    {"L1NotAligned", "", [](ImageFile& i, const Places& p) { Change(i, p.l1, 512); }, 1, 2,
     FindingKind::kL1Entry, Qemu::kOtherCounts, 1, false},
    {"L1WithoutCopied", "", [](ImageFile& i, const Places& p) { Change(i, p.l1, 0, kCopied); }, 1,
     0, FindingKind::kCopiedFlag},
    {"L1CopiedWithoutTable", "", [](ImageFile& i, const Places& p) { Put64(i, p.l1, kCopied); }, 1,
     4, FindingKind::kCopiedFlag, Qemu::kOtherCounts},
    {"L2ReservedBit", "", [](ImageFile& i, const Places& p) { Change(i, p.L2Entry(0), 2); }, 1, 0,
     FindingKind::kL2Entry, Qemu::kSame, 1, false},
    {"L2NotAligned", "", [](ImageFile& i, const Places& p) { Change(i, p.L2Entry(0), 512); }, 2, 0,
     FindingKind::kL2Entry, Qemu::kSame, 1, false},
    {"L2PastTheEnd", "",
     [](ImageFile& i, const Places& p) { Put64(i, p.L2Entry(0), kCopied | kFarAway); }, 1, 1,
     FindingKind::kPastEnd, Qemu::kOtherCounts, 1, false},
    {"L2CopiedWithoutCluster", "",
     [](ImageFile& i, const Places& p) { Put64(i, p.L2Entry(9), kCopied); }, 0, 0,
     FindingKind::kLeak},
    {"L2WithoutCopied", "",
     [](ImageFile& i, const Places& p) { Change(i, p.L2Entry(0), 0, kCopied); }, 1, 0,
     FindingKind::kCopiedFlag},
    {"ZeroClusterNotAligned", "",
     [](ImageFile& i, const Places& p) { Change(i, p.L2Entry(0), 513); }, 2, 0,
     FindingKind::kL2Entry},
    {"ZeroFlagInVersion2", "compat=0.10",
     [](ImageFile& i, const Places& p) { Change(i, p.L2Entry(0), kZeroFlag); }, 1, 0,
     FindingKind::kL2Entry, Qemu::kSeesNothing, 1},
    {"CompressedCopied", "",
     [](ImageFile& i, const Places& p) { Change(i, p.L2Entry(2), kCopied); }, 1, 0,
     FindingKind::kCopiedFlag},
    {"CompressedPastTheEnd", "",
     [](ImageFile& i, const Places& p) { Put64(i, p.L2Entry(2), kCompressed | kFarAway); }, 1, 1,
     FindingKind::kPastEnd, Qemu::kSame, 1, false},
    {"TwoReferences", "",
     [](ImageFile& i, const Places& p) { Put64(i, p.L2Entry(1), Get64(i, p.L2Entry(0))); }, 1, 1,
     FindingKind::kRefcountTooLow},
    {"DataInHeader", "", [](ImageFile& i, const Places& p) { Put64(i, p.L2Entry(0), 512); }, 3, 1,
     FindingKind::kOverlap, Qemu::kOtherCounts, 2, false},
    {"DataInL1", "", [](ImageFile& i, const Places& p) { Put64(i, p.L2Entry(0), kCopied | p.l1); },
     1, 1, FindingKind::kOverlap, Qemu::kSame, 1},
    {"DataInL2", "", [](ImageFile& i, const Places& p) { Put64(i, p.L2Entry(0), kCopied | p.l2); },
     1, 1, FindingKind::kOverlap, Qemu::kSame, 2, false},
    {"DataInRefcountTable", "",
     [](ImageFile& i, const Places& p) { Put64(i, p.L2Entry(0), kCopied | p.refcount_table); }, 1,
     1, FindingKind::kOverlap},
    {"DataInRefcountBlock", "",
     [](ImageFile& i, const Places& p) { Put64(i, p.L2Entry(0), kCopied | p.refcount_block); }, 1,
     1, FindingKind::kOverlap, Qemu::kOtherCounts},
    {"RefcountTableEntryNotAligned", "",
     [](ImageFile& i, const Places& p) { Change(i, p.refcount_table, 512); }, 1, 0,
     FindingKind::kRefcountStructure, Qemu::kOtherCounts},
    {"RefcountTableEntryReservedBit", "",
     [](ImageFile& i, const Places& p) { Change(i, p.refcount_table, 1); }, 1, 0,
     FindingKind::kRefcountStructure, Qemu::kOtherCounts},
    {"RefcountTableEntryZero", "",
     [](ImageFile& i, const Places& p) { Put64(i, p.refcount_table, 0); }, 10, 0,
     FindingKind::kRefcountTooLow},
    {"RefcountTableEntryPastTheEnd", "",
     [](ImageFile& i, const Places& p) { Put64(i, p.refcount_table, kFarAway); }, 1, 0,
     FindingKind::kRefcountStructure, Qemu::kOtherCounts},
    {"RefcountTablePastTheEnd", "",
     [](ImageFile& i, const Places&) { Put64(i, kRefcountTableOffsetField, kFarAway); }, 10, 0,
     FindingKind::kRefcountStructure},
    {"RefcountBlockOfZeros", "",
     [](ImageFile& i, const Places& p) {
       std::fill_n(i.begin() + static_cast<std::ptrdiff_t>(p.refcount_block), kCluster,
                   std::byte{0});
     },
     11, 0, FindingKind::kRefcountTooLow},
    {"RefcountBlockUsedTwice", "",
     [](ImageFile& i, const Places& p) { Put64(i, p.refcount_table + 8, p.refcount_block); }, 1, 0,
     FindingKind::kOverlap, Qemu::kOtherCounts},
    {"TooManyReferences", "refcount_bits=1",
     [](ImageFile& i, const Places& p) { Put64(i, p.L2Entry(1), Get64(i, p.L2Entry(0))); }, 1, 1,
     FindingKind::kRefcountOverflow, Qemu::kSame, 1, false},
    {"SubclustersBoth", "extended_l2=on",
     [](ImageFile& i, const Places& p) { Change(i, p.L2Entry(0) + 8, uint64_t{1} << 35); }, 1, 0,
     FindingKind::kL2Entry, Qemu::kSame, 1, false},
    {"SubclustersOfCompressed", "extended_l2=on",
     [](ImageFile& i, const Places& p) { Change(i, p.L2Entry(2) + 8, 1); }, 1, 0,
     FindingKind::kL2Entry, Qemu::kOtherCounts, 1, false},
    {"SubclustersWithoutCluster", "extended_l2=on",
     [](ImageFile& i, const Places& p) { Change(i, p.L2Entry(9) + 8, 1); }, 1, 0,
     FindingKind::kL2Entry, Qemu::kSame, 1, false},
    {"ExtendedBitZero", "extended_l2=on",
     [](ImageFile& i, const Places& p) { Change(i, p.L2Entry(0), 1); }, 1, 0, FindingKind::kL2Entry,
     Qemu::kSeesNothing, 1},
};

class CheckMutationsTest : public ::testing::TestWithParam<Damage> {
 protected:
  void SetUp() override {
    if (const std::string missing = MissingQemuTool(); !missing.empty()) GTEST_SKIP() << missing;
    image_ = qemu_.Make(SmallImage(GetParam().options));
    damaged_ = image_;
    GetParam().change(damaged_, Places(image_));
  }

  QemuFolder qemu_;
  ImageFile image_;
  ImageFile damaged_;
};

TEST_P(CheckMutationsTest, IsFound) {
  const Damage& damage = GetParam();
  const QemuVerdict theirs = qemu_.Check(damaged_);
  for (const uint64_t window : {RefcountMap::kDefaultWindow, uint64_t{64}}) {
    const CheckResult ours = Verdict(damaged_, {.window_clusters = window});
    EXPECT_EQ(ours.corruptions, damage.corruptions) << Text(ours) << theirs.Tail();
    EXPECT_EQ(ours.leaks, damage.leaks) << Text(ours) << theirs.Tail();
    const auto is_kind = [&](const Finding& finding) { return finding.kind == damage.kind; };
    if (!ours.findings.empty()) {
      EXPECT_TRUE(std::ranges::any_of(ours.findings, is_kind)) << Text(ours);
    }
    if (damage.qemu != Qemu::kSame) continue;
    EXPECT_EQ(ours.corruptions, theirs.Field("corruptions")) << theirs.Tail();
    EXPECT_EQ(ours.leaks, theirs.Field("leaks")) << theirs.Tail();
  }
  const bool clean = damage.corruptions + damage.leaks == 0 || damage.qemu == Qemu::kSeesNothing;
  EXPECT_EQ(theirs.exit_status == 0, clean) << theirs.Tail();
}

TEST_P(CheckMutationsTest, IsRepairedAsFarAsIsSafe) {
  const Damage& damage = GetParam();
  ImageFile repaired = damaged_;
  const auto result = Check(repaired, {.repair = Repair::kAll});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->corruptions, damage.left) << Text(*result);
  EXPECT_EQ(result->leaks, 0u) << Text(*result);
  EXPECT_EQ(result->leaks_fixed, damage.leaks);
  const QemuVerdict after = qemu_.Check(repaired);
  EXPECT_EQ(after.exit_status == 0, damage.qemu_clean_after) << after.Tail() << Text(*result);
  const CheckResult again = Verdict(repaired);
  EXPECT_EQ(again.corruptions, damage.left);
  EXPECT_EQ(again.leaks, 0u);
}

TEST_P(CheckMutationsTest, LeaksAloneAreReclaimedWithoutTouchingTheRest) {
  ImageFile repaired = damaged_;
  const auto result = Check(repaired, {.repair = Repair::kLeaks});
  ASSERT_TRUE(result.ok()) << result.status();
  const CheckResult before = Verdict(damaged_);
  EXPECT_LE(result->corruptions, before.corruptions) << Text(*result);
  EXPECT_LE(result->leaks, before.leaks) << Text(*result);
  // The tables that map data are as they were, unless a flag was all that was wrong.
  if (before.corruptions > 1) {
    const auto l2 = static_cast<std::ptrdiff_t>(Places(image_).l2);
    EXPECT_TRUE(
        std::equal(damaged_.begin() + l2, damaged_.begin() + l2 + 1024, repaired.begin() + l2));
  }
}

INSTANTIATE_TEST_SUITE_P(Damages, CheckMutationsTest, ::testing::ValuesIn(kDamages),
                         [](const auto& damage) { return damage.param.name; });

}  // namespace
}  // namespace gabion::qcow2::testing
