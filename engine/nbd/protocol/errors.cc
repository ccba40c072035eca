#include "engine/nbd/protocol/errors.h"

namespace gabion::nbd {

ErrorCode ErrorCodeOf(const absl::Status& status, FastZero fast_zero) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return ErrorCode::kNone;
    case absl::StatusCode::kPermissionDenied:
      return ErrorCode::kEperm;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
      return ErrorCode::kEinval;
    case absl::StatusCode::kResourceExhausted:
      return ErrorCode::kEnospc;
    case absl::StatusCode::kUnimplemented:
      return fast_zero == FastZero::kYes ? ErrorCode::kEnotsup : ErrorCode::kEinval;
    case absl::StatusCode::kUnavailable:
      return ErrorCode::kEshutdown;
    default:
      return ErrorCode::kEio;
  }
}

std::string_view ErrorName(ErrorCode error) {
  switch (error) {
    case ErrorCode::kNone:
      return "NBD_SUCCESS";
    case ErrorCode::kEperm:
      return "NBD_EPERM";
    case ErrorCode::kEio:
      return "NBD_EIO";
    case ErrorCode::kEnomem:
      return "NBD_ENOMEM";
    case ErrorCode::kEinval:
      return "NBD_EINVAL";
    case ErrorCode::kEnospc:
      return "NBD_ENOSPC";
    case ErrorCode::kEoverflow:
      return "NBD_EOVERFLOW";
    case ErrorCode::kEnotsup:
      return "NBD_ENOTSUP";
    case ErrorCode::kEshutdown:
      return "NBD_ESHUTDOWN";
  }
  return "NBD error";
}

}  // namespace gabion::nbd
