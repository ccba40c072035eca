#include "engine/nbd/protocol/option_payload.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/engine/nbd/protocol/wire_testing.h"

namespace gabion::nbd {
namespace {

using testing::Be16;
using testing::Be32;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::InfoPayload;
using testing::MetaPayload;
using testing::Text32;

TEST(DecodeInfoRequestTest, KnownRequestsCountAndOthersAreIgnored) {
  const auto request = DecodeInfoRequest(AsBytes(InfoPayload("disk", {0, 3, 1, 2, 3, 77, 65535})));
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->export_name, "disk");
  EXPECT_TRUE(request->wants_name && request->wants_description && request->wants_block_size);
  const auto silent = DecodeInfoRequest(AsBytes(InfoPayload("", {0, 4})));
  ASSERT_TRUE(silent.ok()) << silent.status();
  EXPECT_EQ(silent->export_name, "");
  EXPECT_FALSE(silent->wants_name || silent->wants_description || silent->wants_block_size);
}

struct Malformed {
  std::string payload;
  const char* complaint;
};

TEST(DecodeInfoRequestTest, MalformedPayloadsAreNamed) {
  const std::string whole = InfoPayload("disk", {3, 1});
  for (const Malformed& c : {
           Malformed{"", "export name"},
           Malformed{"\1\2\3", "export name"},
           Malformed{Be32(0xffffffff), "4294967295 bytes expected, 0 left"},
           Malformed{Be32(5) + "disk", "5 bytes expected, 4 left"},
           Malformed{Text32("disk"), "number of information requests"},
           Malformed{Text32("disk") + Be16(1), "list of information requests"},
           Malformed{Text32("disk") + Be16(65535) + Be16(3), "list of information requests"},
           Malformed{whole + "x", "1 bytes longer"},
           Malformed{InfoPayload(std::string("a\0b", 3), {}), "NUL"},
           Malformed{InfoPayload("\xff", {}), "UTF-8"},
           Malformed{InfoPayload(std::string(4097, 'x'), {}), "4097"},
       }) {
    const auto request = DecodeInfoRequest(AsBytes(c.payload));
    ASSERT_FALSE(request.ok()) << c.complaint;
    EXPECT_EQ(request.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(AsStd(request.status().message()), HasSubstr(c.complaint));
  }
  for (size_t cut = 0; cut < whole.size(); ++cut) {
    EXPECT_FALSE(DecodeInfoRequest(AsBytes(whole).first(cut)).ok()) << cut;
  }
}

TEST(DecodeInfoRequestTest, LongestName) {
  const std::string name(4096, 'x');
  const auto request = DecodeInfoRequest(AsBytes(InfoPayload(name, {})));
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->export_name, name);
}

TEST(DecodeMetaContextTest, QueriesInOrder) {
  const auto request = DecodeMetaContextRequest(AsBytes(MetaPayload("d", {"a:b", "", "c:"})), 3);
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->export_name, "d");
  EXPECT_THAT(request->queries, ElementsAre("a:b", "", "c:"));
}

TEST(DecodeMetaContextTest, MalformedPayloadsAreNamed) {
  const std::string whole = MetaPayload("disk", {"base:allocation", "x:y"});
  for (const Malformed& c : {
           Malformed{"", "export name"},
           Malformed{Text32("d"), "number of queries"},
           Malformed{Text32("d") + Be32(0xffffffff), "4294967295 queries in 0 bytes"},
           Malformed{Text32("d") + Be32(2) + Text32(""), "2 queries in 4 bytes"},
           Malformed{Text32("d") + Be32(1) + Be32(0xffffffff), "query"},
           Malformed{whole + std::string(1, '\0'), "1 bytes longer"},
           Malformed{MetaPayload("d", {std::string("a:\0", 3)}), "NUL"},
           Malformed{MetaPayload("d", {std::string(4097, 'q')}), "query has 4097"},
           Malformed{MetaPayload(std::string(4097, 'q'), {}), "export name has 4097"},
       }) {
    const auto request = DecodeMetaContextRequest(AsBytes(c.payload), 1024);
    ASSERT_FALSE(request.ok()) << c.complaint;
    EXPECT_EQ(request.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(AsStd(request.status().message()), HasSubstr(c.complaint));
  }
  for (size_t cut = 0; cut < whole.size(); ++cut) {
    EXPECT_FALSE(DecodeMetaContextRequest(AsBytes(whole).first(cut), 1024).ok()) << cut;
  }
}

TEST(DecodeMetaContextTest, TooManyQueriesAreTooBigAndNotMalformed) {
  const std::string payload = MetaPayload("d", {"a:", "b:", "c:", "d:"});
  EXPECT_TRUE(DecodeMetaContextRequest(AsBytes(payload), 4).ok());
  EXPECT_EQ(DecodeMetaContextRequest(AsBytes(payload), 3).status().code(),
            absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace gabion::nbd
