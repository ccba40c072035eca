#include "engine/nbd/protocol/meta_context.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gabion::nbd {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

const std::vector<std::string> kAvailable = {"base:allocation", "qemu:allocation-depth",
                                             "qemu:dirty-bitmap:b0", "qemu:dirty-bitmap:b1"};

TEST(ListContextsTest, NoQueryMeansAll) {
  EXPECT_EQ(ListContexts(kAvailable, {}), kAvailable);
  EXPECT_THAT(ListContexts({}, {}), IsEmpty());
}

TEST(ListContextsTest, ColonEndsAWildcard) {
  EXPECT_THAT(ListContexts(kAvailable, {"base:"}), ElementsAre("base:allocation"));
  EXPECT_THAT(ListContexts(kAvailable, {"qemu:dirty-bitmap:"}),
              ElementsAre("qemu:dirty-bitmap:b0", "qemu:dirty-bitmap:b1"));
  EXPECT_THAT(ListContexts(kAvailable, {"qemu:"}),
              ElementsAre("qemu:allocation-depth", "qemu:dirty-bitmap:b0", "qemu:dirty-bitmap:b1"));
}

TEST(ListContextsTest, QueriesThatMatchNothingAreIgnored) {
  for (const char* query : {"", ":", "base", "base:alloc", "bas:", "x-nobody:", "x-nobody:leaf",
                            "base:allocation:", "qemu:dirty-bitmap:b", "BASE:"}) {
    EXPECT_THAT(ListContexts(kAvailable, {query}), IsEmpty()) << query;
  }
}

TEST(ListContextsTest, EachContextIsListedOnce) {
  EXPECT_THAT(ListContexts(kAvailable, {"base:allocation", "base:", "base:allocation", "x:"}),
              ElementsAre("base:allocation"));
}

TEST(SelectContextsTest, OnlyFullNamesSelect) {
  EXPECT_THAT(SelectContexts(kAvailable, {}), IsEmpty());
  EXPECT_THAT(SelectContexts(kAvailable, {"base:", "qemu:dirty-bitmap:", "x:y", ""}), IsEmpty());
  EXPECT_THAT(
      SelectContexts(kAvailable, {"qemu:dirty-bitmap:b1", "base:allocation"}),
      ElementsAre(MetaContext{1, "base:allocation"}, MetaContext{4, "qemu:dirty-bitmap:b1"}));
}

TEST(SelectContextsTest, RepeatedQueriesSelectOnce) {
  EXPECT_THAT(SelectContexts(kAvailable, {"base:allocation", "base:allocation"}),
              ElementsAre(MetaContext{1, "base:allocation"}));
}

}  // namespace
}  // namespace gabion::nbd
