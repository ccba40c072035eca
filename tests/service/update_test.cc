#include <gmock/gmock.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "gabion/v1/export.pb.h"
#include "gabion/v1/image.pb.h"
#include "service/errors.h"
#include "service/validate.h"
#include "tests/service/violations_of.h"

namespace gabion::service {
namespace {

using google::protobuf::util::MessageDifferencer;
using testing::ElementsAre;

v1::Export StoredExport() {
  v1::Export stored;
  stored.set_name("exports/e");
  stored.set_uid("u1");
  stored.set_generation(3);
  stored.set_source("images/a");
  stored.set_nbd_name("e");
  stored.set_description("old");
  stored.set_read_only(true);
  stored.set_enabled(true);
  (*stored.mutable_labels())["a"] = "1";
  (*stored.mutable_labels())["b"] = "2";
  stored.mutable_block_sizes()->set_minimum_bytes(512);
  stored.mutable_block_sizes()->set_preferred_bytes(4096);
  stored.mutable_access()->set_max_connections(9);
  stored.set_state(v1::Export::STATE_ACTIVE);
  return stored;
}

v1::UpdateExportRequest Update(const std::vector<std::string>& mask) {
  v1::UpdateExportRequest request;
  request.mutable_export_()->set_name("exports/e");
  for (const auto& path : mask) request.mutable_update_mask()->add_paths(path);
  return request;
}

TEST(ApplyUpdateTest, WithoutMaskWhatIsSetWinsAndTheRestStays) {
  auto request = Update({});
  request.mutable_export_()->set_description("new");
  request.mutable_export_()->mutable_block_sizes()->set_minimum_bytes(1024);
  v1::Export stored = StoredExport();
  ASSERT_TRUE(*ApplyUpdate(request, &stored));
  v1::Export expected = StoredExport();
  expected.set_description("new");
  expected.mutable_block_sizes()->set_minimum_bytes(1024);
  EXPECT_TRUE(MessageDifferencer::Equals(stored, expected)) << stored.DebugString();
}

TEST(ApplyUpdateTest, WithoutMaskMapsAreReplacedWhole) {
  auto request = Update({});
  (*request.mutable_export_()->mutable_labels())["c"] = "3";
  v1::Export stored = StoredExport();
  ASSERT_TRUE(*ApplyUpdate(request, &stored));
  EXPECT_EQ(stored.labels_size(), 1);
  EXPECT_EQ(stored.labels().at("c"), "3");
}

TEST(ApplyUpdateTest, AMaskNamesWhatChangesAndUnsetMeansCleared) {
  auto request = Update({"read_only", "block_sizes", "labels"});
  request.mutable_export_()->set_description("not in the mask");
  request.mutable_export_()->mutable_block_sizes()->set_minimum_bytes(4096);
  v1::Export stored = StoredExport();
  ASSERT_TRUE(*ApplyUpdate(request, &stored));
  v1::Export expected = StoredExport();
  expected.set_read_only(false);
  expected.clear_labels();
  expected.mutable_block_sizes()->Clear();
  expected.mutable_block_sizes()->set_minimum_bytes(4096);
  EXPECT_TRUE(MessageDifferencer::Equals(stored, expected)) << stored.DebugString();
}

TEST(ApplyUpdateTest, NestedPathsChangeOneFieldOnly) {
  auto request = Update({"block_sizes.preferred_bytes", "access.max_connections"});
  request.mutable_export_()->mutable_block_sizes()->set_preferred_bytes(8192);
  request.mutable_export_()->mutable_block_sizes()->set_minimum_bytes(1);
  v1::Export stored = StoredExport();
  ASSERT_TRUE(*ApplyUpdate(request, &stored));
  EXPECT_EQ(stored.block_sizes().preferred_bytes(), 8192u);
  EXPECT_EQ(stored.block_sizes().minimum_bytes(), 512u);
  EXPECT_EQ(stored.access().max_connections(), 0u);
}

TEST(ApplyUpdateTest, NestedPathsUnsetOnBothSidesCreateNothing) {
  v1::Export stored = StoredExport();
  stored.clear_access();
  EXPECT_FALSE(*ApplyUpdate(Update({"access.max_connections"}), &stored));
  EXPECT_FALSE(stored.has_access());
}

TEST(ApplyUpdateTest, StarReplacesAllButNameOutputsAndUnsetImmutables) {
  auto request = Update({"*"});
  request.mutable_export_()->set_description("new");
  v1::Export stored = StoredExport();
  ASSERT_TRUE(*ApplyUpdate(request, &stored));
  v1::Export expected;
  expected.set_name("exports/e");
  expected.set_uid("u1");
  expected.set_generation(3);
  expected.set_source("images/a");
  expected.set_nbd_name("e");
  expected.set_description("new");
  expected.set_state(v1::Export::STATE_ACTIVE);
  EXPECT_TRUE(MessageDifferencer::Equals(stored, expected)) << stored.DebugString();
}

TEST(ApplyUpdateTest, UnknownPathsAreRefusedAllAtOnce) {
  const v1::Export before = StoredExport();
  v1::Export stored = before;
  const auto result = ApplyUpdate(Update({"walrus", "description", "labels.a", "description.x", "",
                                          "*", "block_sizes.", "Description", "format"}),
                                  &stored);
  EXPECT_EQ(InfoOf(result.status()).reason(), "FIELD_MASK_INVALID");
  EXPECT_EQ(ViolationsOf(result.status()).size(), 8u);
  EXPECT_TRUE(MessageDifferencer::Equals(stored, before));
}

TEST(ApplyUpdateTest, OutputOnlyPathsAreIgnored) {
  auto request =
      Update({"uid", "state", "generation", "effective_block_sizes.minimum.bytes", "name"});
  request.mutable_export_()->set_uid("forged");
  request.mutable_export_()->mutable_effective_block_sizes()->mutable_minimum()->set_bytes(7);
  v1::Export stored = StoredExport();
  EXPECT_FALSE(*ApplyUpdate(request, &stored));
  EXPECT_TRUE(MessageDifferencer::Equals(stored, StoredExport()));
}

TEST(ApplyUpdateTest, ImmutableFieldsMayBeRepeatedButNotChanged) {
  auto request = Update({"source", "nbd_name"});
  request.mutable_export_()->set_source("images/a");
  request.mutable_export_()->set_nbd_name("e");
  v1::Export stored = StoredExport();
  EXPECT_FALSE(*ApplyUpdate(request, &stored));
  request.mutable_export_()->set_source("images/b");
  request.mutable_export_()->clear_nbd_name();
  EXPECT_THAT(ViolationsOf(ApplyUpdate(request, &stored).status()),
              ElementsAre("export.source FIELD_IMMUTABLE", "export.nbd_name FIELD_IMMUTABLE"));
}

TEST(ApplyUpdateTest, TheFormatOfAnImageCannotChange) {
  v1::Image stored;
  stored.set_name("images/a");
  stored.set_virtual_size_bytes(4096);
  stored.mutable_raw()->set_request_alignment_bytes(512);
  v1::UpdateImageRequest request;
  request.mutable_image()->set_name("images/a");
  request.mutable_image()->mutable_raw();
  EXPECT_FALSE(*ApplyUpdate(request, &stored));  // nothing said about the alignment
  request.mutable_image()->mutable_raw()->set_request_alignment_bytes(4096);
  EXPECT_THAT(ViolationsOf(ApplyUpdate(request, &stored).status()),
              ElementsAre("image.raw.request_alignment_bytes FIELD_IMMUTABLE"));
  request.mutable_image()->clear_raw();
  request.mutable_update_mask()->add_paths("raw");
  EXPECT_THAT(ViolationsOf(ApplyUpdate(request, &stored).status()),
              ElementsAre("image.format FIELD_IMMUTABLE", "image.format FIELD_REQUIRED"));
}

TEST(ApplyUpdateTest, StarKeepsTheFormatThatItDoesNotName) {
  v1::Image stored;
  stored.set_name("images/a");
  stored.set_virtual_size_bytes(4096);
  stored.mutable_raw();
  v1::UpdateImageRequest request;
  request.mutable_image()->set_name("images/a");
  request.mutable_image()->set_virtual_size_bytes(8192);
  request.mutable_update_mask()->add_paths("*");
  ASSERT_TRUE(*ApplyUpdate(request, &stored));
  EXPECT_TRUE(stored.has_raw());
  EXPECT_EQ(stored.virtual_size_bytes(), 8192u);
}

TEST(ApplyUpdateTest, TheResultIsCheckedAsAWhole) {
  auto request = Update({"block_sizes.minimum_bytes"});
  request.mutable_export_()->mutable_block_sizes()->set_minimum_bytes(65536);
  v1::Export stored = StoredExport();  // preferred is 4096
  EXPECT_THAT(ViolationsOf(ApplyUpdate(request, &stored).status()),
              ElementsAre("export.block_sizes.preferred_bytes BLOCK_SIZE_ORDER"));
  EXPECT_EQ(stored.block_sizes().minimum_bytes(), 512u);
}

}  // namespace
}  // namespace gabion::service
