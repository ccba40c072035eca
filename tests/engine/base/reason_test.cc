#include "engine/base/reason.h"

#include <gtest/gtest.h>

#include <string>

namespace gabion {
namespace {

TEST(ReasonTest, TravelsWithTheStatusAndItsAnnotations) {
  const absl::Status status = WithReason(absl::FailedPreconditionError("held"),
                                         {"IMAGE_LOCKED", {{"perm-byte", "101"}, {"empty", ""}}});
  const absl::Status annotated = Annotate(status, "images/a");
  EXPECT_EQ(annotated.message(), "images/a: held");
  EXPECT_EQ(annotated.code(), absl::StatusCode::kFailedPrecondition);
  const std::optional<Reason> reason = ReasonOf(annotated);
  ASSERT_TRUE(reason.has_value());
  EXPECT_EQ(reason->reason, "IMAGE_LOCKED");
  ASSERT_EQ(reason->metadata.size(), 2u);
  EXPECT_EQ(reason->metadata[0], std::make_pair(std::string("perm-byte"), std::string("101")));
  EXPECT_EQ(reason->metadata[1], std::make_pair(std::string("empty"), std::string()));
}

TEST(ReasonTest, AStatusWithoutReasonHasNone) {
  EXPECT_FALSE(ReasonOf(absl::InternalError("x")).has_value());
  EXPECT_TRUE(Annotate(absl::OkStatus(), "x").ok());
}

}  // namespace
}  // namespace gabion
