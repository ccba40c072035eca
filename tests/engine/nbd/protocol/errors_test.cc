#include "engine/nbd/protocol/errors.h"

#include <gtest/gtest.h>

namespace gabion::nbd {
namespace {

TEST(ErrorsTest, EachStatusHasItsError) {
  struct Case {
    absl::StatusCode code;
    uint32_t plain;
    uint32_t fast_zero;
  };
  constexpr Case kCases[] = {
      {absl::StatusCode::kOk, 0, 0},
      {absl::StatusCode::kPermissionDenied, 1, 1},
      {absl::StatusCode::kInvalidArgument, 22, 22},
      {absl::StatusCode::kOutOfRange, 22, 22},
      {absl::StatusCode::kResourceExhausted, 28, 28},
      {absl::StatusCode::kUnimplemented, 22, 95},
      {absl::StatusCode::kUnavailable, 108, 108},
      {absl::StatusCode::kDataLoss, 5, 5},
      {absl::StatusCode::kInternal, 5, 5},
      {absl::StatusCode::kUnknown, 5, 5},
      {absl::StatusCode::kNotFound, 5, 5},
      {absl::StatusCode::kAborted, 5, 5},
      {absl::StatusCode::kCancelled, 5, 5},
      {absl::StatusCode::kDeadlineExceeded, 5, 5},
      {absl::StatusCode::kFailedPrecondition, 5, 5},
      {absl::StatusCode::kAlreadyExists, 5, 5},
      {absl::StatusCode::kUnauthenticated, 5, 5},
  };
  for (const Case& c : kCases) {
    const absl::Status status(c.code, "why");
    EXPECT_EQ(static_cast<uint32_t>(ErrorCodeOf(status)), c.plain) << status;
    EXPECT_EQ(static_cast<uint32_t>(ErrorCodeOf(status, FastZero::kYes)), c.fast_zero) << status;
  }
}

TEST(ErrorsTest, NoStatusBecomesEnomem) {
  for (int code = 0; code < 64; ++code) {
    const absl::Status status(static_cast<absl::StatusCode>(code), "why");
    for (FastZero fast_zero : {FastZero::kNo, FastZero::kYes}) {
      EXPECT_NE(ErrorCodeOf(status, fast_zero), ErrorCode::kEnomem) << code;
    }
  }
}

TEST(ErrorsTest, NamesAreTheProtocols) {
  EXPECT_EQ(ErrorName(ErrorCode::kEinval), "NBD_EINVAL");
  EXPECT_EQ(ErrorName(ErrorCode::kEshutdown), "NBD_ESHUTDOWN");
  EXPECT_EQ(ErrorName(static_cast<ErrorCode>(4711)), "NBD error");
}

}  // namespace
}  // namespace gabion::nbd
