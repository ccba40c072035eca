#include "service/text.h"

#include <gtest/gtest.h>

namespace gabion::service {
namespace {

TEST(PrintableTest, KeepsUtf8AndReplacesWhatIsNone) {
  EXPECT_EQ(Printable("Gr\xC3\xBC\xC3\x9F"
                      "e",
                      100),
            "Gr\xC3\xBC\xC3\x9F"
            "e");
  EXPECT_EQ(Printable("\xF0\x9F\x98\x80", 100), "\xF0\x9F\x98\x80");
  EXPECT_EQ(Printable("a\xFF"
                      "b",
                      100),
            "a?b");
  EXPECT_EQ(Printable("a\xC3", 100), "a?");               // cut character
  EXPECT_EQ(Printable("\xC0\xAF", 100), "??");            // overlong
  EXPECT_EQ(Printable("\xED\xA0\x80", 100), "???");       // surrogate
  EXPECT_EQ(Printable("\xF4\x90\x80\x80", 100), "????");  // above U+10FFFF
  EXPECT_EQ(Printable(std::string_view("a\0b\nc\x7F", 6), 100), "a?b?c?");
}

TEST(PrintableTest, CutsAtACharacterAndShowsIt) {
  EXPECT_EQ(Printable("abcdef", 6), "abcdef");
  EXPECT_EQ(Printable("abcdefg", 6), "abc...");
  EXPECT_EQ(Printable("ab\xC3\xBC"
                      "cdef",
                      6),
            "ab...");
  EXPECT_EQ(Printable("abcdefg", 2), "..");
  EXPECT_EQ(Printable("abcdefg", 0), "");
}

TEST(JsonQuoteTest, EscapesWhatJsonAsksFor) {
  EXPECT_EQ(JsonQuote("a\"b\\c\n\r\t\x01"), R"("a\"b\\c\n\r\t\u0001")");
  EXPECT_EQ(JsonQuote("\xC3\xBC\xFF"), "\"\xC3\xBC?\"");
  EXPECT_EQ(JsonQuote(""), "\"\"");
}

}  // namespace
}  // namespace gabion::service
