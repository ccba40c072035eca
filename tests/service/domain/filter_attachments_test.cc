#include "service/domain/filter_attachments.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gabion::service {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

TEST(FilterAttachmentsTest, WhatAnExportHadIsAttachedUntilItIsSettledAndNotTold) {
  FilterAttachments attachments;
  attachments.Tell("exports/e", {"filters/a", "filters/b"});
  attachments.Settle("exports/e");
  EXPECT_THAT(attachments.Changed("exports/e"), IsEmpty());
  attachments.Tell("exports/e", {"filters/b", "filters/c"});
  EXPECT_THAT(attachments.Changed("exports/e"), ElementsAre("filters/a", "filters/c"));
  EXPECT_THAT(attachments.ExportsOf("filters/a"), ElementsAre("exports/e"));
  EXPECT_THAT(attachments.ToldOf("filters/a"), IsEmpty());
  EXPECT_THAT(attachments.ToldOf("filters/c"), ElementsAre("exports/e"));
  attachments.Settle("exports/e");
  EXPECT_THAT(attachments.ExportsOf("filters/a"), IsEmpty());
  EXPECT_THAT(attachments.ExportsOf("filters/b"), ElementsAre("exports/e"));
}

TEST(FilterAttachmentsTest, WhatIsTakenBackIsAsItWas) {
  FilterAttachments attachments;
  attachments.Tell("exports/e", {"filters/a"});
  attachments.Settle("exports/e");
  attachments.Tell("exports/e", {"filters/b"});
  attachments.Tell("exports/e", {"filters/a"});
  EXPECT_THAT(attachments.ExportsOf("filters/b"), ElementsAre("exports/e"));
  EXPECT_THAT(attachments.Changed("exports/e"), ElementsAre("filters/a", "filters/b"));
  attachments.Settle("exports/e");
  EXPECT_THAT(attachments.ExportsOf("filters/b"), IsEmpty());
  EXPECT_THAT(attachments.ToldOf("filters/a"), ElementsAre("exports/e"));
}

TEST(FilterAttachmentsTest, ExportsComeInTheOrderOfTheirNamesUntilTheyAreRemoved) {
  FilterAttachments attachments;
  for (const char* name : {"exports/z", "exports/m", "exports/a"}) {
    attachments.Tell(name, {"filters/a"});
    attachments.Settle(name);
  }
  EXPECT_THAT(attachments.ToldOf("filters/a"), ElementsAre("exports/a", "exports/m", "exports/z"));
  attachments.Remove("exports/m");
  EXPECT_THAT(attachments.ExportsOf("filters/a"), ElementsAre("exports/a", "exports/z"));
  EXPECT_THAT(attachments.Changed("exports/m"), IsEmpty());
}

TEST(FilterAttachmentsTest, OneThatIsToldToGoIsAttachedUntilItIsRemoved) {
  FilterAttachments attachments;
  attachments.Tell("exports/e", {"filters/a"});
  attachments.Settle("exports/e");
  attachments.Tell("exports/e", {});
  EXPECT_THAT(attachments.Changed("exports/e"), ElementsAre("filters/a"));
  EXPECT_THAT(attachments.ToldOf("filters/a"), IsEmpty());
  EXPECT_THAT(attachments.ExportsOf("filters/a"), ElementsAre("exports/e"));
  attachments.Remove("exports/e");
  EXPECT_THAT(attachments.ExportsOf("filters/a"), IsEmpty());
}

}  // namespace
}  // namespace gabion::service
