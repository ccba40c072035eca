#include "service/domain/page_token.h"

#include <gtest/gtest.h>

#include "service/errors.h"

namespace gabion::service {
namespace {

TEST(PageTokensTest, SealedKeyIsOpenedAgain) {
  const PageTokens tokens("key");
  EXPECT_EQ(*tokens.Open("images", tokens.Seal("images", "images/a")), "images/a");
  EXPECT_EQ(*PageTokens("key").Open("images", tokens.Seal("images", "images/a")), "images/a");
}

TEST(PageTokensTest, NoTokenIsTheFirstPage) {
  EXPECT_EQ(*PageTokens("key").Open("images", ""), "");
}

TEST(PageTokensTest, EveryOtherTokenIsRefused) {
  const PageTokens tokens("key");
  const std::string good = tokens.Seal("images", "images/a");
  std::vector<std::string> bad = {"x",
                                  "!!!",
                                  good + "A",
                                  good.substr(1),
                                  PageTokens("other").Seal("images", "images/a"),
                                  tokens.Seal("exports", "images/a")};
  for (std::size_t i = 0; i < good.size(); ++i) {
    bad.push_back(good);
    bad.back()[i] = good[i] == 'A' ? 'B' : 'A';
  }
  for (const std::string& token : bad) {
    EXPECT_EQ(InfoOf(tokens.Open("images", token).status()).reason(), "PAGE_TOKEN_INVALID")
        << token;
  }
}

TEST(PageTokensTest, BorderBetweenQueryAndKeyIsSealedToo) {
  const PageTokens tokens("key");
  EXPECT_NE(tokens.Seal("ab", "c").substr(0, 20), tokens.Seal("a", "bc").substr(0, 20));
}

TEST(PageTokensTest, KeysAreLongAndDiffer) {
  EXPECT_EQ(NewPageTokenKey().size(), 32u);
  EXPECT_NE(NewPageTokenKey(), NewPageTokenKey());
}

TEST(PageSizeTest, ZeroIsTheDefaultAndThereIsACap) {
  EXPECT_EQ(PageSize(0), 50);
  EXPECT_EQ(PageSize(1), 1);
  EXPECT_EQ(PageSize(1000), 1000);
  EXPECT_EQ(PageSize(2'000'000'000), 1000);
}

}  // namespace
}  // namespace gabion::service
