#include "service/etag.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "gabion/v1/export.pb.h"
#include "gabion/v1/image.pb.h"
#include "service/errors.h"

namespace gabion::service {
namespace {

v1::Export AnExport() {
  v1::Export exported;
  exported.set_name("exports/e");
  exported.set_uid("5f0c1d0e");
  exported.set_generation(3);
  exported.set_state(v1::Export::STATE_ACTIVE);
  return exported;
}

TEST(EtagTest, IsQuotedHexAndTheSameInEveryProcess) {
  // printf '%s' '16:gabion.v1.Export;3:uid;8:5f0c1d0e;10:generation;3:0/3;5:state;3:0/2;' |
  //     sha256sum
  EXPECT_EQ(EtagOf(AnExport()), "\"c112de70dbd7a11662d0fc93bfe6f28c\"");
  EXPECT_THAT(EtagOf(v1::Image()), testing::MatchesRegex("\"[0-9a-f]{32}\""));
}

TEST(EtagTest, ChangesWithWhatMattersToCallers) {
  const std::vector<std::function<void(v1::Export*)>> changes = {
      [](v1::Export* exported) { exported->set_uid("5f0c1d0f"); },
      [](v1::Export* exported) { exported->set_generation(4); },
      [](v1::Export* exported) { exported->set_state(v1::Export::STATE_HIDDEN); },
      [](v1::Export* exported) { exported->clear_uid(); },
  };
  for (size_t i = 0; i < changes.size(); ++i) {
    v1::Export changed = AnExport();
    changes[i](&changed);
    EXPECT_NE(EtagOf(changed), EtagOf(AnExport())) << i;
  }
  v1::Image image;
  image.set_uid("5f0c1d0e");
  image.set_generation(3);
  image.set_state(v1::Image::STATE_ACTIVE);
  EXPECT_NE(EtagOf(image), EtagOf(AnExport()));
}

TEST(EtagTest, DoesNotChangeWithWhatIsOnlyObserved) {
  const std::vector<std::function<void(v1::Export*)>> changes = {
      [](v1::Export* exported) { exported->set_connection_count(9); },
      [](v1::Export* exported) { exported->mutable_update_time()->set_seconds(1); },
      [](v1::Export* exported) { exported->add_uris("nbd://h/e"); },
      [](v1::Export* exported) { exported->mutable_state_error()->set_code(5); },
      [](v1::Export* exported) { exported->mutable_effective_block_sizes()->set_generation(7); },
  };
  for (size_t i = 0; i < changes.size(); ++i) {
    v1::Export changed = AnExport();
    changes[i](&changed);
    EXPECT_EQ(EtagOf(changed), EtagOf(AnExport())) << i;
  }
}

TEST(CheckEtagTest, EmptyAndCurrentPassEverythingElseIsAborted) {
  const v1::Export exported = AnExport();
  const std::string etag = EtagOf(exported);
  EXPECT_TRUE(CheckEtag("", exported).ok());
  EXPECT_TRUE(CheckEtag(etag, exported).ok());
  for (const std::string& bad :
       {etag.substr(1, 32), "W/" + etag, std::string("*"), std::string("\"\""), etag + " "}) {
    const google::rpc::Status wire = ToRpcStatus(CheckEtag(bad, exported));
    EXPECT_EQ(wire.code(), static_cast<int>(absl::StatusCode::kAborted)) << bad;
    google::rpc::ErrorInfo info;
    ASSERT_EQ(wire.details_size(), 1);  // no RetryInfo: time alone does not help
    EXPECT_TRUE(wire.details(0).UnpackTo(&info));
    EXPECT_EQ(info.reason(), "ETAG_MISMATCH");
    EXPECT_EQ(info.metadata().at("etag"), etag);
  }
}

}  // namespace
}  // namespace gabion::service
