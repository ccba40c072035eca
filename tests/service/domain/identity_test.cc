#include "service/domain/identity.h"

#include <gtest/gtest.h>

#include <regex>

namespace gabion::service {
namespace {

TEST(IdentityTest, UidsAreVersionFourAndDiffer) {
  const std::regex shape("[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}");
  const std::string uid = NewUid();
  EXPECT_TRUE(std::regex_match(uid, shape)) << uid;
  EXPECT_NE(uid, NewUid());
}

TEST(IdentityTest, ConnectionNamesAreReadAndWritten) {
  const auto parsed = ParseConnectionName("exports/e/connections/18446744073709551615");
  ASSERT_TRUE(parsed.has_value());
  EXPECT_EQ(parsed->export_name, "exports/e");
  EXPECT_EQ(parsed->id, ~uint64_t{0});
  EXPECT_EQ(FormatConnectionName(*parsed), "exports/e/connections/18446744073709551615");
}

TEST(IdentityTest, OtherNamesAreNoConnectionNames) {
  for (const char* name :
       {"", "exports/e", "exports/e/connections/", "exports/e/connections/x",
        "exports/e/connections/07", "exports/e/connections/18446744073709551616",
        "images/e/connections/7", "exports/e/connections/7/x", "exports//connections/7"}) {
    EXPECT_FALSE(ParseConnectionName(name).has_value()) << name;
  }
}

}  // namespace
}  // namespace gabion::service
