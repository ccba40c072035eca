#include "engine/filters/feature_mask.h"

#include <gtest/gtest.h>

#include "tests/engine/filters/filter_stand.h"

namespace gabion::filters {
namespace {

using block::Extent;
using block::ExtentKind;
using block::ExtentList;
using block::Feature;
using test::MemoryNode;

struct Case {
  bool FeatureMaskOptions::*field;
  Feature feature;
};
constexpr Case kCases[] = {
    {&FeatureMaskOptions::hide_trim, Feature::kTrim},
    {&FeatureMaskOptions::hide_zero, Feature::kZero},
    {&FeatureMaskOptions::hide_fast_zero, Feature::kFastZero},
    {&FeatureMaskOptions::hide_fua, Feature::kFua},
    {&FeatureMaskOptions::hide_holes, Feature::kHoles},
    {&FeatureMaskOptions::hide_multi_conn, Feature::kMultiConn},
    {&FeatureMaskOptions::hide_cache, Feature::kCache},
};

TEST(FeatureMaskTest, EachOptionHidesItsFeatureAndNothingElse) {
  test::FilterStand stand;
  MemoryNode child({.size = 4096});
  for (const Case& c : kCases) {
    FeatureMaskOptions options;
    options.*c.field = true;
    const auto mask = NewFeatureMask(child, stand.environment(), options);
    EXPECT_EQ(mask->limits().hidden, Bit(c.feature));
    test::ExpectSameLimits(mask->limits(), child.limits(), {"hidden"});
  }
  const auto none = NewFeatureMask(child, stand.environment(), {});
  test::ExpectSameLimits(none->limits(), child.limits());
}

TEST(FeatureMaskTest, MasksAddUp) {
  test::FilterStand stand;
  MemoryNode child({.size = 4096});
  const auto lower = NewFeatureMask(child, stand.environment(), {.hide_trim = true});
  const auto upper = NewFeatureMask(*lower, stand.environment(), {.hide_fua = true});
  EXPECT_EQ(upper->limits().hidden, Bit(Feature::kTrim) | Bit(Feature::kFua));
}

TEST(FeatureMaskTest, WithoutHolesEverythingIsDataOfTheFirstLayerWithoutAPlace) {
  test::FilterStand stand;
  test::RandomSource random;
  MemoryNode memory({.size = 20000});
  test::FillAtRandom(memory, random);
  test::RichNode child(memory);
  const auto mask = NewFeatureMask(child, stand.environment(), {.hide_holes = true});
  const ExtentList expected{Extent{.range = Range(5, 19000), .kind = ExtentKind::kData}};
  EXPECT_EQ(*mask->BlockStatus(Range(5, 19000), 1).Take(), expected);
}

TEST(FeatureMaskTest, WhatIsHiddenStillWorks) {
  test::FilterStand stand;
  MemoryNode child({.size = 4096, .fast_zero = true});
  FeatureMaskOptions all;
  for (const Case& c : kCases) all.*c.field = true;
  const auto mask = NewFeatureMask(child, stand.environment(), all);
  EXPECT_TRUE(mask->Discard(Range(0, 512)).Take().ok());
  EXPECT_TRUE(mask->Zero(Range(0, 512), {.fast_only = true}).Take().ok());
  EXPECT_TRUE(mask->Cache(Range(0, 512)).Take().ok());
  EXPECT_TRUE(mask->Write(Range(0, 512), test::Filled(512, 1), {.durable = true}).Take().ok());
  EXPECT_EQ(child.calls().size(), 4u);
  EXPECT_TRUE(child.calls().back().durable);
}

TEST(FeatureMaskTest, FollowsTheChildsGrowth) {
  test::FilterStand stand;
  MemoryNode child({.size = 4096});
  const auto mask = NewFeatureMask(child, stand.environment(), {.hide_trim = true});
  EXPECT_TRUE(mask->Resize(ByteCount{8192}).Take().ok());
  EXPECT_EQ(mask->limits().size, ByteCount{8192});
  EXPECT_EQ(mask->limits().hidden, Bit(Feature::kTrim));
}

}  // namespace
}  // namespace gabion::filters
