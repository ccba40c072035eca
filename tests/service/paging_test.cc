#include "service/paging.h"

#include <gtest/gtest.h>

#include "service/errors.h"

namespace gabion::service {
namespace {

TEST(PagingTest, SizesAreDefaultedAndCapped) {
  EXPECT_EQ(ParsePage("images", 0, "")->size, 50u);
  EXPECT_EQ(ParsePage("images", 7, "")->size, 7u);
  EXPECT_EQ(ParsePage("images", 5000, "")->size, 1000u);
  EXPECT_EQ(ParsePage("images", 7, "")->after, "");
}

TEST(PagingTest, ATokenLeadsBehindTheLastRow) {
  const std::string token = MakePageToken("images", "images/a");
  EXPECT_EQ(ParsePage("images", 1, token)->after, "images/a");
}

TEST(PagingTest, OtherTextsAndTokensOfOtherListsAreRefused) {
  const std::string token = MakePageToken("images", "images/a");
  for (const std::string& bad : {std::string("x"), std::string("images/a"), token.substr(1),
                                 token + "=", MakePageToken("exports", "exports/e"),
                                 MakePageToken("images", ""), std::string("\xFF\0", 2)}) {
    const auto page = ParsePage("images", 1, bad);
    EXPECT_EQ(InfoOf(page.status()).reason(), "PAGE_TOKEN_INVALID") << bad;
  }
}

}  // namespace
}  // namespace gabion::service
