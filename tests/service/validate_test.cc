#include "service/validate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "gabion/v1/export.pb.h"
#include "gabion/v1/image.pb.h"
#include "gabion/v1/inspect.pb.h"
#include "service/errors.h"
#include "service/names.h"
#include "tests/service/violations_of.h"

namespace gabion::service {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

v1::CreateExportRequest GoodExport() {
  v1::CreateExportRequest request;
  request.set_export_id("e");
  request.mutable_export_()->set_source("images/a");
  return request;
}

v1::CreateImageRequest GoodImage() {
  v1::CreateImageRequest request;
  request.set_image_id("a");
  request.mutable_image()->mutable_raw();
  request.mutable_image()->set_virtual_size_bytes(1000300);
  return request;
}

TEST(NamesTest, IdsKeepAip122) {
  for (const char* good : {"a", "a1", "a-b", "abc-1"}) EXPECT_TRUE(IsResourceId(good)) << good;
  EXPECT_TRUE(IsResourceId(std::string(63, 'a')));
  for (const char* bad : {"", "A", "1a", "-a", "a-", "a_b", "a.b", "a/b", "\xC3\xBC", "-", ".."}) {
    EXPECT_FALSE(IsResourceId(bad)) << bad;
  }
  EXPECT_FALSE(IsResourceId(std::string(64, 'a')));
}

TEST(NamesTest, NamesHaveTheShapeOfTheirType) {
  EXPECT_TRUE(IsNameOf("gabion/Image", "images/a"));
  EXPECT_TRUE(IsNameOf("gabion/Connection", "exports/e/connections/17"));
  for (const char* bad : {"", "images", "images/", "/images/a", "images/a/", "images/a/b",
                          "images/A", "exports/a", "images//a", "images/../a", "images/-"}) {
    EXPECT_FALSE(IsNameOf("gabion/Image", bad)) << bad;
  }
  EXPECT_FALSE(IsNameOf("gabion/Connection", "exports/1/connections/17"));
  EXPECT_FALSE(IsNameOf("gabion/NoSuchType", "images/a"));
  EXPECT_EQ(TypeOfName("exports/e"), "gabion/Export");
  EXPECT_EQ(TypeOfName("exports/e/connections/1"), "gabion/Connection");
  EXPECT_EQ(TypeOfName("walrus/e"), "");
}

TEST(NamesTest, PartsOfNames) {
  EXPECT_EQ(IdOf("images/a"), "a");
  EXPECT_EQ(IdOf("exports/e/connections/7"), "7");
  EXPECT_EQ(ParentOf("exports/e/connections/7"), "exports/e");
  EXPECT_EQ(ParentOf("images/a"), "");
  EXPECT_EQ(ParentTypeOf("gabion/Connection"), "gabion/Export");
  EXPECT_EQ(ParentTypeOf("gabion/Image"), "");
  EXPECT_EQ(MakeName("images", "a"), "images/a");
}

TEST(PrepareRequestTest, GoodRequestsPass) {
  auto image = GoodImage();
  EXPECT_TRUE(PrepareRequest(&image).ok());
  auto made = GoodExport();
  auto* sizes = made.mutable_export_()->mutable_block_sizes();
  sizes->set_minimum_bytes(512);
  sizes->set_preferred_bytes(4096);
  sizes->set_maximum_payload_bytes(4294967295u);
  EXPECT_TRUE(PrepareRequest(&made).ok());
}

TEST(PrepareRequestTest, AllViolationsComeAtOnceAndTheFirstIsTheErrorsOwn) {
  v1::CreateExportRequest request;
  request.set_export_id("Bad_Id");
  request.mutable_export_()->mutable_block_sizes()->set_minimum_bytes(1000);
  request.mutable_export_()->set_nbd_name(std::string(5000, 'x'));
  request.mutable_export_()->set_description("a\nb");
  const absl::Status status = PrepareRequest(&request);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(ViolationsOf(status),
              ElementsAre("export_id NAME_INVALID", "export.source FIELD_REQUIRED",
                          "export.nbd_name FIELD_TOO_LONG", "export.description FIELD_INVALID",
                          "export.block_sizes.minimum_bytes BLOCK_SIZE_NOT_POWER_OF_TWO"));
  EXPECT_EQ(InfoOf(status).reason(), "NAME_INVALID");
  EXPECT_EQ(InfoOf(status).metadata().at("field"), "export_id");
  EXPECT_EQ(InfoOf(status).metadata().at("value"), "Bad_Id");
}

TEST(PrepareRequestTest, EmptyRequestNamesEveryRequiredField) {
  v1::CreateImageRequest request;
  EXPECT_THAT(ViolationsOf(PrepareRequest(&request)),
              ElementsAre("image_id FIELD_REQUIRED", "image FIELD_REQUIRED"));
  request.set_image_id("a");
  request.mutable_image();
  EXPECT_THAT(ViolationsOf(PrepareRequest(&request)), ElementsAre("image.format FIELD_REQUIRED"));
}

TEST(PrepareRequestTest, WhatCallersMayNotSetIsCleared) {
  auto request = GoodExport();
  request.mutable_export_()->set_name("exports/other");
  request.mutable_export_()->set_uid("mine");
  request.mutable_export_()->set_connection_count(7);
  request.mutable_export_()->set_state(v1::Export::STATE_FAILED);
  ASSERT_TRUE(PrepareRequest(&request).ok());
  EXPECT_EQ(request.SerializeAsString(), GoodExport().SerializeAsString());
}

struct BlockSizesCase {
  uint32_t minimum, preferred, maximum;
  std::vector<std::string> violations;
};

TEST(PrepareRequestTest, BlockSizesKeepTheirRules) {
  const std::string at = "export.block_sizes.";
  const std::string odd = " BLOCK_SIZE_NOT_POWER_OF_TWO";
  const std::string range = " BLOCK_SIZE_OUT_OF_RANGE";
  const std::string order = " BLOCK_SIZE_ORDER";
  const std::string min = at + "minimum_bytes", pref = at + "preferred_bytes";
  const std::string max = at + "maximum_payload_bytes";
  const BlockSizesCase cases[] = {
      {0, 0, 0, {}},
      {1, 512, 1048576, {}},
      {65536, 65536, 33554432, {}},
      {3, 0, 0, {min + odd}},
      {131072, 0, 0, {min + range}},
      {4294967295u, 0, 0, {min + range, min + odd}},
      {0, 256, 0, {pref + range}},
      {0, 513, 0, {pref + odd}},
      {0, 67108864, 0, {pref + range}},
      {4096, 512, 0, {pref + order}},
      {0, 0, 1048575, {max + range}},
      {0, 2097152, 1048576, {max + order}},
      {4096, 0, 1048576 + 512, {max + order}},
      {4096, 4096, 4294967295u, {}},
      {1, 0, 1048577, {}},
  };
  for (const auto& c : cases) {
    auto request = GoodExport();
    auto* sizes = request.mutable_export_()->mutable_block_sizes();
    sizes->set_minimum_bytes(c.minimum);
    sizes->set_preferred_bytes(c.preferred);
    sizes->set_maximum_payload_bytes(c.maximum);
    EXPECT_EQ(ViolationsOf(PrepareRequest(&request)), c.violations) << sizes->DebugString();
  }
}

TEST(PrepareRequestTest, BlockSizeErrorsTellValueAndWhatIsAllowed) {
  auto request = GoodExport();
  request.mutable_export_()->mutable_block_sizes()->set_minimum_bytes(131072);
  const auto info = InfoOf(PrepareRequest(&request));
  EXPECT_EQ(info.reason(), "BLOCK_SIZE_OUT_OF_RANGE");
  EXPECT_EQ(info.metadata().at("field"), "export.block_sizes.minimum_bytes");
  EXPECT_EQ(info.metadata().at("value"), "131072");
  EXPECT_EQ(info.metadata().at("allowed"), "a power of two from 1 to 65536");
}

TEST(PrepareRequestTest, EnumValuesThatNobodyKnowsAreRefused) {
  auto request = GoodExport();
  request.mutable_export_()->mutable_block_sizes()->set_tail(
      static_cast<v1::BlockSizePolicy::Tail>(77));
  EXPECT_THAT(ViolationsOf(PrepareRequest(&request)),
              ElementsAre("export.block_sizes.tail FIELD_INVALID"));
}

TEST(PrepareRequestTest, SizesOutOfRangeHaveTheirOwnCode) {
  auto request = GoodImage();
  request.mutable_image()->set_virtual_size_bytes(9223372036854710272u);
  EXPECT_TRUE(PrepareRequest(&request).ok());
  request.mutable_image()->set_virtual_size_bytes(9223372036854710273u);
  const absl::Status status = PrepareRequest(&request);
  EXPECT_EQ(status.code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(InfoOf(status).reason(), "SIZE_OUT_OF_RANGE");
}

TEST(PrepareRequestTest, NegativePageSizesAreRefusedAndZeroIsNot) {
  v1::ListImagesRequest request;
  EXPECT_TRUE(PrepareRequest(&request).ok());
  request.set_page_size(-1);
  EXPECT_EQ(InfoOf(PrepareRequest(&request)).reason(), "PAGE_SIZE_NEGATIVE");
}

TEST(PrepareRequestTest, ReferencesMustHaveTheFormOfTheirType) {
  auto request = GoodExport();
  request.mutable_export_()->set_source("exports/a");
  EXPECT_THAT(ViolationsOf(PrepareRequest(&request)), ElementsAre("export.source NAME_INVALID"));
  v1::MapRequest map;
  map.set_name("pools/default");
  const absl::Status status = PrepareRequest(&map);
  EXPECT_EQ(InfoOf(status).metadata().at("allowed"), "images/{image} or exports/{export}");
  map.set_name("exports/e");
  EXPECT_TRUE(PrepareRequest(&map).ok());
  v1::ListConnectionsRequest connections;
  connections.set_parent("images/a");
  EXPECT_THAT(ViolationsOf(PrepareRequest(&connections)), ElementsAre("parent NAME_INVALID"));
}

TEST(PrepareRequestTest, ContentOfAWriteMustBeThereAndNotEmpty) {
  v1::WriteRequest request;
  request.set_name("images/a");
  EXPECT_THAT(ViolationsOf(PrepareRequest(&request)), ElementsAre("content FIELD_REQUIRED"));
  request.set_pattern("");
  EXPECT_THAT(ViolationsOf(PrepareRequest(&request)), ElementsAre("pattern FIELD_TOO_SHORT"));
  request.set_data(std::string(1048577, 'x'));
  EXPECT_THAT(ViolationsOf(PrepareRequest(&request)), ElementsAre("data FIELD_TOO_LONG"));
  request.set_data("x");
  EXPECT_THAT(ViolationsOf(PrepareRequest(&request)), IsEmpty());
}

TEST(PrepareRequestTest, LabelsKeepTheirRules) {
  auto request = GoodImage();
  // Asked for anew each time: reading by reflection ends the validity of the reference.
  const auto labels = [&]() -> auto& { return *request.mutable_image()->mutable_labels(); };
  labels()["csi.storage/pvc-name"] = "data-0 \xC3\xBC";
  EXPECT_TRUE(PrepareRequest(&request).ok());
  labels()["Bad"] = "x";
  EXPECT_THAT(ViolationsOf(PrepareRequest(&request)),
              ElementsAre("image.labels[\"Bad\"] FIELD_INVALID"));
  labels().clear();
  labels()["k"] = std::string(257, 'v');
  EXPECT_THAT(ViolationsOf(PrepareRequest(&request)),
              ElementsAre("image.labels[\"k\"] FIELD_TOO_LONG"));
  labels().clear();
  for (int i = 0; i < 65; ++i) labels()["k" + std::to_string(i)] = "v";
  EXPECT_THAT(ViolationsOf(PrepareRequest(&request)), ElementsAre("image.labels FIELD_TOO_LONG"));
}

TEST(PrepareRequestTest, UpdatesNeedOnlyTheNameUntilTheStoredResourceIsKnown) {
  v1::UpdateExportRequest request;
  EXPECT_THAT(ViolationsOf(PrepareRequest(&request)), ElementsAre("export FIELD_REQUIRED"));
  request.mutable_export_()->set_description("x");
  EXPECT_THAT(ViolationsOf(PrepareRequest(&request)), ElementsAre("export.name FIELD_REQUIRED"));
  request.mutable_export_()->set_name("images/a");
  EXPECT_THAT(ViolationsOf(PrepareRequest(&request)), ElementsAre("export.name NAME_INVALID"));
  request.mutable_export_()->set_name("exports/e");
  EXPECT_TRUE(PrepareRequest(&request).ok());
}

TEST(ValidateResourceTest, PathsStartWhereTheResourceStands) {
  v1::Image image;
  EXPECT_THAT(ViolationsOf(ValidateResource(image, "image")),
              ElementsAre("image.format FIELD_REQUIRED"));
}

}  // namespace
}  // namespace gabion::service
