#include "service/read_mask.h"

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "gabion/v1/export.pb.h"
#include "tests/service/violations_of.h"

namespace gabion::service {
namespace {

using google::protobuf::FieldMask;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr char kExport[] = R"(
    name: "exports/e" uid: "u" labels { key: "k" value: "v" } uris: "x" uris: "y"
    access { max_connections: 7 transport: TRANSPORT_PLAINTEXT_TCP }
    effective_block_sizes { minimum { bytes: 512 } preferred { bytes: 4096 } })";

FieldMask MaskOf(const std::vector<std::string>& paths) {
  FieldMask mask;
  for (const std::string& path : paths) mask.add_paths(path);
  return mask;
}

v1::Export FromText(const std::string& text) {
  v1::Export exported;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &exported)) << text;
  return exported;
}

void ExpectTrimmed(const std::vector<std::string>& paths, const std::string& expected) {
  const auto mask = ParseReadMask(v1::Export::descriptor(), MaskOf(paths));
  ASSERT_TRUE(mask.ok()) << mask.status();
  v1::Export exported = FromText(kExport);
  mask->Trim(&exported);
  EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(exported, FromText(expected)))
      << exported.DebugString();
}

TEST(ReadMaskTest, ShowsWhatItNamesAndNothingElse) {
  ExpectTrimmed({"name"}, "name: 'exports/e'");
  ExpectTrimmed({"description"}, "");
  ExpectTrimmed({"uid", "labels", "uris"},
                "uid: 'u' labels { key: 'k' value: 'v' } uris: 'x' uris: 'y'");
  ExpectTrimmed({"access.max_connections"}, "access { max_connections: 7 }");
  ExpectTrimmed({"access.max_connections", "access"},
                "access { max_connections: 7 transport: TRANSPORT_PLAINTEXT_TCP }");
  ExpectTrimmed({"effective_block_sizes.minimum.bytes", "name", "name"},
                "name: 'exports/e' effective_block_sizes { minimum { bytes: 512 } }");
}

TEST(ReadMaskTest, NothingAndStarShowEverything) {
  ExpectTrimmed({}, kExport);
  ExpectTrimmed({"*"}, kExport);
  ExpectTrimmed({"name", "*"}, kExport);
}

TEST(ReadMaskTest, KeepsTellsWhatNeedNotBeFoundOut) {
  const auto mask =
      ParseReadMask(v1::Export::descriptor(), MaskOf({"name", "access.max_connections"}));
  ASSERT_TRUE(mask.ok());
  EXPECT_FALSE(mask->keeps_all());
  EXPECT_TRUE(mask->Keeps("name"));
  EXPECT_TRUE(mask->Keeps("access"));
  EXPECT_FALSE(mask->Keeps("uris"));
  EXPECT_FALSE(mask->Keeps("acces"));
  const auto all = ParseReadMask(v1::Export::descriptor(), FieldMask());
  EXPECT_TRUE(all->keeps_all());
  EXPECT_TRUE(all->Keeps("uris"));
}

TEST(ReadMaskTest, UnknownPathsAreNamedEachOnItsOwn) {
  for (const std::string bad :
       {"color", "access.color", "name.x", "uris.x", "labels.k", "", ".", "name.", ".name",
        "access..transport", "Name", "access.*", "name,uid", "** "}) {
    const auto mask = ParseReadMask(v1::Export::descriptor(), MaskOf({"name", bad}));
    ASSERT_FALSE(mask.ok()) << bad;
    EXPECT_THAT(ViolationsOf(mask.status()), ElementsAre("read_mask FIELD_MASK_INVALID"));
    EXPECT_THAT(std::string(mask.status().message()), HasSubstr("names \"" + bad + "\", which"));
  }
  const auto two = ParseReadMask(v1::Export::descriptor(), MaskOf({"x", "*", "y"}));
  EXPECT_EQ(ViolationsOf(two.status()).size(), 2u);
}

TEST(ReadMaskTest, MasksHaveABound) {
  std::vector<std::string> paths(kMaxReadMaskPaths, "name");
  EXPECT_TRUE(ParseReadMask(v1::Export::descriptor(), MaskOf(paths)).ok());
  paths.push_back("name");
  const auto mask = ParseReadMask(v1::Export::descriptor(), MaskOf(paths));
  EXPECT_THAT(std::string(mask.status().message()), HasSubstr("names more than 128 fields"));
}

}  // namespace
}  // namespace gabion::service
