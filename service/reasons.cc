#include "service/reasons.h"

namespace gabion::service {
namespace {

constexpr ErrorReason kAll[] = {
    reason::kFieldRequired,
    reason::kFieldImmutable,
    reason::kFieldMaskInvalid,
    reason::kFieldInvalid,
    reason::kFieldOutOfRange,
    reason::kFieldNotPowerOfTwo,
    reason::kFieldOrder,
    reason::kFieldTooLong,
    reason::kFieldTooShort,
    reason::kNameInvalid,
    reason::kPageSizeNegative,
    reason::kPageTokenInvalid,
    reason::kRequestIdReused,
    reason::kFilterExpressionInvalid,
    reason::kBlockSizeNotPowerOfTwo,
    reason::kBlockSizeOutOfRange,
    reason::kBlockSizeOrder,
    reason::kBlockSizeBelowStorage,
    reason::kSizeNotMultipleOfMinimum,
    reason::kShrinkNotAllowed,
    reason::kFormatMismatch,
    reason::kSizeMismatch,
    reason::kImageInUse,
    reason::kImageHasDependents,
    reason::kChainTooDeep,
    reason::kFeatureUnsupported,
    reason::kImageNotActive,
    reason::kImageDeleted,
    reason::kImageFileMissing,
    reason::kImageLocked,
    reason::kImageNotWritable,
    reason::kImageNotDeleted,
    reason::kImageReplaced,
    reason::kImageCorrupt,
    reason::kPathOutsidePool,
    reason::kPoolFull,
    reason::kPoolUnreachable,
    reason::kExportHasConnections,
    reason::kExportReadOnly,
    reason::kFilterKindUnknown,
    reason::kFilterKindDisabled,
    reason::kFilterParametersInvalid,
    reason::kFilterStackTooDeep,
    reason::kStackEntryDuplicate,
    reason::kFilterAlreadyAttached,
    reason::kFilterInUse,
    reason::kStackIncompatible,
    reason::kQuiesceTimeout,
    reason::kTooManyExports,
    reason::kFeatureNotBuilt,
    reason::kResourceNotFound,
    reason::kResourceExists,
    reason::kResourceExistsDifferent,
    reason::kOperationInProgress,
    reason::kOperationDone,
    reason::kOperationNotDone,
    reason::kOperationCancelled,
    reason::kJobInterrupted,
    reason::kTooManyJobs,
    reason::kWatchLagged,
    reason::kEtagMismatch,
    reason::kConcurrentUpdate,
    reason::kSizeOutOfRange,
    reason::kOffsetBeyondEnd,
    reason::kRevisionCompacted,
    reason::kPermissionDenied,
    reason::kRateLimited,
    reason::kDraining,
    reason::kInternal,
};

}  // namespace

std::span<const ErrorReason> AllReasons() { return kAll; }

const ErrorReason* FindReason(std::string_view name) {
  for (const ErrorReason& reason : kAll) {
    if (reason.name == name) return &reason;
  }
  return nullptr;
}

std::string_view FallbackReason(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kOk:
      return "OK";
    case absl::StatusCode::kCancelled:
      return "CANCELLED";
    case absl::StatusCode::kInvalidArgument:
      return "INVALID_ARGUMENT";
    case absl::StatusCode::kDeadlineExceeded:
      return "DEADLINE_EXCEEDED";
    case absl::StatusCode::kNotFound:
      return "NOT_FOUND";
    case absl::StatusCode::kAlreadyExists:
      return "ALREADY_EXISTS";
    case absl::StatusCode::kPermissionDenied:
      return "PERMISSION_DENIED";
    case absl::StatusCode::kResourceExhausted:
      return "RESOURCE_EXHAUSTED";
    case absl::StatusCode::kFailedPrecondition:
      return "FAILED_PRECONDITION";
    case absl::StatusCode::kAborted:
      return "ABORTED";
    case absl::StatusCode::kOutOfRange:
      return "OUT_OF_RANGE";
    case absl::StatusCode::kUnimplemented:
      return "UNIMPLEMENTED";
    case absl::StatusCode::kUnavailable:
      return "UNAVAILABLE";
    case absl::StatusCode::kDataLoss:
      return "DATA_LOSS";
    case absl::StatusCode::kUnauthenticated:
      return "UNAUTHENTICATED";
    default:
      return "INTERNAL";
  }
}

}  // namespace gabion::service
