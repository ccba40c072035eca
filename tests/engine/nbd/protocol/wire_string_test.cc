#include "engine/nbd/protocol/wire_string.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/base/text.h"

namespace gabion::nbd {
namespace {

using ::testing::HasSubstr;

TEST(WireStringTest, Utf8IsToldFromOtherBytes) {
  for (std::string_view good :
       {"", "a", "disk-1", "\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xee\x80\x80",
        "\xef\xbf\xbf", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf", "a\xc3\xa9z"}) {
    EXPECT_TRUE(IsUtf8(good)) << Quoted(good);
  }
  for (std::string_view bad : {"\x80", "\xff", "\xc0\x80", "\xc1\xbf", "\xc2",
                               "\xc2"
                               "a",
                               "\xe0\x9f\xbf", "\xe1\x80", "\xed\xa0\x80", "\xf0\x8f\xbf\xbf",
                               "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "ok\xe2\x82"}) {
    EXPECT_FALSE(IsUtf8(bad)) << Quoted(bad);
  }
}

TEST(WireStringTest, ClippingKeepsCharactersWhole) {
  EXPECT_EQ(ClipUtf8("abc", 3), "abc");
  EXPECT_EQ(ClipUtf8("abc", 2), "ab");
  EXPECT_EQ(ClipUtf8("abc", 0), "");
  EXPECT_EQ(ClipUtf8("a\xe2\x82\xac", 3), "a");
  EXPECT_EQ(ClipUtf8("a\xe2\x82\xac", 4), "a\xe2\x82\xac");
  EXPECT_EQ(ClipUtf8("\x80\x80\x80", 2), "");
}

TEST(WireStringTest, RulesForStrings) {
  EXPECT_TRUE(ValidateString("name", "").ok());
  EXPECT_TRUE(ValidateString("name", std::string(4096, 'n')).ok());
  struct Case {
    std::string text;
    const char* complaint;
  };
  for (const Case& c : {Case{std::string(4097, 'n'), "4097"}, Case{std::string("a\0b", 3), "NUL"},
                        Case{std::string(1, '\0'), "NUL"}, Case{"a\xff", "UTF-8"}}) {
    const absl::Status status = ValidateString("export name", c.text);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(AsStd(status.message()), HasSubstr(c.complaint));
    EXPECT_THAT(AsStd(status.message()), HasSubstr("export name"));
  }
}

TEST(WireStringTest, QuotedTextIsPrintableAndShort) {
  EXPECT_EQ(Quoted("disk"), "\"disk\"");
  EXPECT_EQ(Quoted("a\nb\"\xc3\xa9"), "\"a\\nb\\\"\xc3\xa9\"");
  EXPECT_EQ(Quoted("\xff"), "\"\\xff\"");
  EXPECT_EQ(Quoted(std::string(100, 'x')), "\"" + std::string(64, 'x') + "...\"");
}

}  // namespace
}  // namespace gabion::nbd
