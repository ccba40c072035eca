// Images that QEMU has made: both checks say the same about them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/engine/formats/qcow2/check_testing.h"
#include "tests/engine/formats/qcow2/qemu_tools.h"

namespace gabion::qcow2::testing {
namespace {

class CheckQemuTest : public ::testing::TestWithParam<Recipe> {
 protected:
  void SetUp() override {
    if (const std::string missing = MissingQemuTool(); !missing.empty()) GTEST_SKIP() << missing;
  }
  QemuFolder qemu_;
};

TEST_P(CheckQemuTest, BothFindTheSame) {
  const ImageFile image = qemu_.Make(GetParam());
  const QemuVerdict theirs = qemu_.Check(image);
  ASSERT_EQ(theirs.exit_status, 0) << theirs.Tail();
  // With several windows and batches, too: each bounded part sees a part of the image only.
  for (const uint64_t window : {RefcountMap::kDefaultWindow, uint64_t{256}}) {
    for (const std::size_t batch : {std::size_t{1000}, std::size_t{1}}) {
      CheckOptions options;
      options.window_clusters = window;
      options.batch_tables = batch;
      const CheckResult ours = Verdict(image, options);
      EXPECT_TRUE(ours.corruptions == 0 && ours.leaks == 0 && ours.check_errors == 0) << Text(ours);
      EXPECT_EQ(ours.image_end_offset, theirs.Field("image-end-offset"));
      EXPECT_EQ(ours.total_clusters, theirs.Field("total-clusters"));
      EXPECT_EQ(ours.allocated_clusters, theirs.Field("allocated-clusters"));
      EXPECT_EQ(ours.fragmented_clusters, theirs.Field("fragmented-clusters"));
      EXPECT_EQ(ours.compressed_clusters, theirs.Field("compressed-clusters"));
    }
  }
}

TEST_P(CheckQemuTest, ARepairOfACleanImageWritesNothing) {
  const ImageFile image = qemu_.Make(GetParam());
  ImageFile repaired = image;
  const auto result = Check(repaired, {.repair = Repair::kAll});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_TRUE(repaired == image);
  EXPECT_EQ(result->corruptions_fixed + result->leaks_fixed, 0u);
}

TEST_P(CheckQemuTest, RefcountsThatAreLostAreMadeAnew) {
  const ImageFile image = qemu_.Make(GetParam());
  std::vector<std::string> snapshots;
  if (GetParam().steps.size() > 5) snapshots = {"s1", "s3"};
  ImageFile broken = image;
  const Places places(image);
  Put64(broken, places.refcount_table, 0);
  const CheckResult found = Verdict(broken);
  EXPECT_GT(found.corruptions, 0u);
  for (const uint64_t window : {RefcountMap::kDefaultWindow, uint64_t{256}}) {
    ImageFile repaired = broken;
    const auto result = Check(repaired, {.repair = Repair::kAll, .window_clusters = window});
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->corruptions + result->leaks, 0u) << Text(*result);
    EXPECT_EQ(result->corruptions_fixed, found.corruptions);
    const QemuVerdict after = qemu_.Check(repaired);
    EXPECT_EQ(after.exit_status, 0) << after.Tail();
    EXPECT_TRUE(qemu_.Contents(repaired, snapshots) == qemu_.Contents(image, snapshots));
  }
}

// All refcounts one too high, or at 1 where they were 0.
TEST_P(CheckQemuTest, LeaksAreFoundAndReclaimed) {
  if (GetParam().name == "Refcounts1") GTEST_SKIP() << "one bit cannot be one too high";
  const ImageFile image = qemu_.Make(GetParam());
  const auto parsed = Parse(image, Access::kRead);
  ASSERT_TRUE(parsed.ok());
  const Geometry geometry(parsed->header);
  ImageFile leaky = image;
  std::byte* block = &leaky[Places(image).refcount_block];
  const uint64_t clusters = std::min<uint64_t>(geometry.Clusters(image.size()),
                                               uint64_t{1} << geometry.refcount_block_bits());
  uint64_t leaks = 0;
  for (uint64_t cluster = 0; cluster < clusters; cluster += 3) {
    const uint64_t stored = LoadRefcount(block, cluster, geometry.refcount_order);
    if (stored == geometry.max_refcount()) continue;
    StoreRefcount(block, cluster, geometry.refcount_order, stored + 1);
    ++leaks;
  }
  const QemuVerdict theirs = qemu_.Check(leaky);
  const CheckResult ours = Verdict(leaky, {.max_findings = 5});
  EXPECT_EQ(ours.leaks, leaks);
  EXPECT_EQ(ours.leaks, theirs.Field("leaks"));
  EXPECT_EQ(ours.corruptions, theirs.Field("corruptions"));
  EXPECT_EQ(ours.findings.size() + ours.findings_left_out, ours.leaks + ours.corruptions);
  EXPECT_LE(ours.findings.size(), 5u);
  ImageFile repaired = leaky;
  const auto result = Check(repaired, {.repair = Repair::kLeaks, .window_clusters = 64});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->leaks_fixed, leaks);
  EXPECT_EQ(result->corruptions + result->leaks, 0u) << Text(*result);
  EXPECT_TRUE(repaired == image) << "each refcount as it was";
}

INSTANTIATE_TEST_SUITE_P(Recipes, CheckQemuTest, ::testing::ValuesIn(Recipes()),
                         [](const auto& recipe) { return recipe.param.name; });

}  // namespace
}  // namespace gabion::qcow2::testing
