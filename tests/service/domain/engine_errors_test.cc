#include "service/domain/engine_errors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/base/reason.h"
#include "service/errors.h"
#include "tests/service/violations_of.h"

namespace gabion::service {
namespace {

using testing::ElementsAre;

EngineCall Creation() {
  return {.image = "images/a", .export_name = "exports/e", .pool = "pools/default"};
}

TEST(EngineErrorsTest, OkAndErrorsOfTheApiPass) {
  EXPECT_TRUE(FromEngine(absl::OkStatus(), {}).ok());
  const absl::Status ours = NotFound("gabion/Image", "images/a");
  EXPECT_EQ(FromEngine(ours, Creation()), ours);
}

TEST(EngineErrorsTest, ReasonDecidesTheCode) {
  const absl::Status status = FromEngine(
      WithReason(absl::PermissionDeniedError("read-only"), {"EXPORT_READ_ONLY", {}}), Creation());
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(InfoOf(status).metadata().at("export"), "exports/e");
}

TEST(EngineErrorsTest, FieldOfAPolicyStandsInItsMessage) {
  const absl::Status status =
      FromEngine(WithReason(absl::InvalidArgumentError("odd"),
                            {"BLOCK_SIZE_ORDER", {{"field", "preferred_bytes"}, {"value", "1"}}}),
                 Creation());
  EXPECT_THAT(ViolationsOf(status),
              ElementsAre("export.block_sizes.preferred_bytes BLOCK_SIZE_ORDER"));
  EXPECT_EQ(InfoOf(status).metadata().at("field"), "export.block_sizes.preferred_bytes");
  EXPECT_EQ(InfoOf(status).metadata().at("value"), "1");
}

TEST(EngineErrorsTest, LockTellsTheByteAndTheImage) {
  const absl::Status status = FromEngine(
      WithReason(absl::FailedPreconditionError("locked"), {"IMAGE_LOCKED", {{"perm-byte", "101"}}}),
      Creation());
  EXPECT_EQ(InfoOf(status).metadata().at("perm-byte"), "101");
  EXPECT_EQ(InfoOf(status).metadata().at("image"), "images/a");
}

TEST(EngineErrorsTest, ErrorWithoutReasonGetsTheOneOfItsCode) {
  EngineCall growth;
  growth.image = "images/a";
  growth.pool = "pools/default";
  growth.size_field = "image.virtual_size_bytes";
  EXPECT_EQ(InfoOf(FromEngine(absl::ResourceExhaustedError("full"), growth)).reason(), "POOL_FULL");
  EXPECT_EQ(InfoOf(FromEngine(absl::OutOfRangeError("big"), growth)).reason(), "SIZE_OUT_OF_RANGE");
  EXPECT_EQ(InfoOf(FromEngine(absl::NotFoundError("gone"), growth)).reason(), "RESOURCE_NOT_FOUND");
}

TEST(EngineErrorsTest, DefectStaysOne) {
  EXPECT_EQ(FromEngine(absl::InternalError("bug"), Creation()), absl::InternalError("bug"));
}

TEST(EngineErrorsTest, UnknownReasonKeepsCodeAndMessage) {
  const absl::Status status = FromEngine(
      WithReason(absl::FailedPreconditionError("why"), {"NEVER_HEARD_OF", {}}), Creation());
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(status.message(), "why");
}

}  // namespace
}  // namespace gabion::service
