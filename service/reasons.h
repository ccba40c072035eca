// The reasons of errors (google.rpc.ErrorInfo.reason) that Gabion sends, each with its status code:
// one table, so that a reason never comes with two codes.
#pragma once

#include <span>
#include <string_view>

#include "absl/status/status.h"

namespace gabion::service {

// ErrorInfo.domain of every reason.
inline constexpr std::string_view kErrorDomain = "gabion";

struct ErrorReason {
  std::string_view name;  // at most 63 characters, [A-Z][A-Z0-9_]+[A-Z0-9] (AIP-193)
  absl::StatusCode code;
};

// In the comments: the metadata keys that come with the reason.
namespace code {
using enum absl::StatusCode;
}
namespace reason {

// Field values. Metadata: field, and value and allowed where there is a value.
inline constexpr ErrorReason kFieldRequired{"FIELD_REQUIRED", code::kInvalidArgument};
inline constexpr ErrorReason kFieldImmutable{"FIELD_IMMUTABLE", code::kInvalidArgument};
inline constexpr ErrorReason kFieldMaskInvalid{"FIELD_MASK_INVALID", code::kInvalidArgument};
inline constexpr ErrorReason kFieldInvalid{"FIELD_INVALID", code::kInvalidArgument};
inline constexpr ErrorReason kFieldOutOfRange{"FIELD_OUT_OF_RANGE", code::kInvalidArgument};
inline constexpr ErrorReason kFieldNotPowerOfTwo{"FIELD_NOT_POWER_OF_TWO", code::kInvalidArgument};
inline constexpr ErrorReason kFieldOrder{"FIELD_ORDER", code::kInvalidArgument};
inline constexpr ErrorReason kFieldTooLong{"FIELD_TOO_LONG", code::kInvalidArgument};
inline constexpr ErrorReason kFieldTooShort{"FIELD_TOO_SHORT", code::kInvalidArgument};
inline constexpr ErrorReason kNameInvalid{"NAME_INVALID", code::kInvalidArgument};
inline constexpr ErrorReason kPageSizeNegative{"PAGE_SIZE_NEGATIVE", code::kInvalidArgument};
inline constexpr ErrorReason kPageTokenInvalid{"PAGE_TOKEN_INVALID", code::kInvalidArgument};
inline constexpr ErrorReason kFilterExpressionInvalid{"FILTER_EXPRESSION_INVALID",
                                                      code::kInvalidArgument};

// Block sizes. Metadata: field, value, allowed; BELOW_STORAGE: minimum, determined_by.
inline constexpr ErrorReason kBlockSizeNotPowerOfTwo{"BLOCK_SIZE_NOT_POWER_OF_TWO",
                                                     code::kInvalidArgument};
inline constexpr ErrorReason kBlockSizeOutOfRange{"BLOCK_SIZE_OUT_OF_RANGE",
                                                  code::kInvalidArgument};
inline constexpr ErrorReason kBlockSizeOrder{"BLOCK_SIZE_ORDER", code::kInvalidArgument};
inline constexpr ErrorReason kBlockSizeBelowStorage{"BLOCK_SIZE_BELOW_STORAGE",
                                                    code::kInvalidArgument};
// Metadata: size, minimum.
inline constexpr ErrorReason kSizeNotMultipleOfMinimum{"SIZE_NOT_MULTIPLE_OF_MINIMUM",
                                                       code::kFailedPrecondition};

// Metadata: field.
inline constexpr ErrorReason kRequestIdReused{"REQUEST_ID_REUSED", code::kInvalidArgument};

// Images. Metadata: field.
inline constexpr ErrorReason kShrinkNotAllowed{"SHRINK_NOT_ALLOWED", code::kInvalidArgument};
inline constexpr ErrorReason kFormatMismatch{"FORMAT_MISMATCH", code::kInvalidArgument};
inline constexpr ErrorReason kSizeMismatch{"SIZE_MISMATCH", code::kInvalidArgument};
// Metadata: image, and dependents or exports where there are some.
inline constexpr ErrorReason kImageInUse{"IMAGE_IN_USE", code::kFailedPrecondition};
inline constexpr ErrorReason kImageHasDependents{"IMAGE_HAS_DEPENDENTS", code::kFailedPrecondition};
inline constexpr ErrorReason kChainTooDeep{"CHAIN_TOO_DEEP", code::kFailedPrecondition};
inline constexpr ErrorReason kFeatureUnsupported{"FEATURE_UNSUPPORTED", code::kFailedPrecondition};
inline constexpr ErrorReason kImageNotActive{"IMAGE_NOT_ACTIVE", code::kFailedPrecondition};
// A tombstone. Metadata: image, purge-time.
inline constexpr ErrorReason kImageDeleted{"IMAGE_DELETED", code::kFailedPrecondition};
// Metadata: image.
inline constexpr ErrorReason kImageFileMissing{"IMAGE_FILE_MISSING", code::kFailedPrecondition};
inline constexpr ErrorReason kImageNotDeleted{"IMAGE_NOT_DELETED", code::kFailedPrecondition};
inline constexpr ErrorReason kImageNotWritable{"IMAGE_NOT_WRITABLE", code::kFailedPrecondition};
// The file carries another image's uid, or is not the one that is open.
inline constexpr ErrorReason kImageReplaced{"IMAGE_REPLACED", code::kFailedPrecondition};
// Metadata: perm-byte.
inline constexpr ErrorReason kImageLocked{"IMAGE_LOCKED", code::kFailedPrecondition};
inline constexpr ErrorReason kImageCorrupt{"IMAGE_CORRUPT", code::kDataLoss};
inline constexpr ErrorReason kPathOutsidePool{"PATH_OUTSIDE_POOL", code::kPermissionDenied};
inline constexpr ErrorReason kPoolFull{"POOL_FULL", code::kResourceExhausted};
inline constexpr ErrorReason kPoolUnreachable{"POOL_UNREACHABLE", code::kUnavailable};

// Exports. Metadata: export.
inline constexpr ErrorReason kExportHasConnections{"EXPORT_HAS_CONNECTIONS",
                                                   code::kFailedPrecondition};
inline constexpr ErrorReason kExportReadOnly{"EXPORT_READ_ONLY", code::kFailedPrecondition};
// Metadata: field, and entry-id and index where it is an entry of a stack.
inline constexpr ErrorReason kFilterKindUnknown{"FILTER_KIND_UNKNOWN", code::kInvalidArgument};
inline constexpr ErrorReason kFilterKindDisabled{"FILTER_KIND_DISABLED", code::kFailedPrecondition};
inline constexpr ErrorReason kFilterParametersInvalid{"FILTER_PARAMETERS_INVALID",
                                                      code::kInvalidArgument};
inline constexpr ErrorReason kFilterStackTooDeep{"FILTER_STACK_TOO_DEEP", code::kInvalidArgument};
inline constexpr ErrorReason kStackEntryDuplicate{"STACK_ENTRY_DUPLICATE", code::kInvalidArgument};
// Metadata: entry-id.
inline constexpr ErrorReason kFilterAlreadyAttached{"FILTER_ALREADY_ATTACHED",
                                                    code::kAlreadyExists};
// Metadata: exports.
inline constexpr ErrorReason kFilterInUse{"FILTER_IN_USE", code::kFailedPrecondition};
// Metadata: export, connections.
inline constexpr ErrorReason kStackIncompatible{"STACK_INCOMPATIBLE_WITH_CONNECTIONS",
                                                code::kFailedPrecondition};
// Metadata: export, timeout.
inline constexpr ErrorReason kQuiesceTimeout{"QUIESCE_TIMEOUT", code::kAborted};
// Metadata: limit.
inline constexpr ErrorReason kTooManyExports{"TOO_MANY_EXPORTS", code::kResourceExhausted};
// Metadata: field where there is one.
inline constexpr ErrorReason kFeatureNotBuilt{"FEATURE_NOT_BUILT", code::kUnimplemented};

// Any resource. Metadata: field where the resource is named inside a request.
inline constexpr ErrorReason kResourceNotFound{"RESOURCE_NOT_FOUND", code::kNotFound};
inline constexpr ErrorReason kResourceExists{"RESOURCE_EXISTS", code::kAlreadyExists};
// Metadata: differing-fields.
inline constexpr ErrorReason kResourceExistsDifferent{"RESOURCE_EXISTS_DIFFERENT",
                                                      code::kAlreadyExists};
// Metadata: operation, where it has a name; resource, if the call has waited for others that change
// it, for as long as it could.
inline constexpr ErrorReason kOperationInProgress{"OPERATION_IN_PROGRESS", code::kAborted};
// Metadata: operation.
inline constexpr ErrorReason kOperationDone{"OPERATION_DONE", code::kFailedPrecondition};
inline constexpr ErrorReason kOperationNotDone{"OPERATION_NOT_DONE", code::kFailedPrecondition};
inline constexpr ErrorReason kOperationCancelled{"OPERATION_CANCELLED", code::kCancelled};
inline constexpr ErrorReason kJobInterrupted{"JOB_INTERRUPTED", code::kAborted};
// Metadata: limit.
inline constexpr ErrorReason kTooManyJobs{"TOO_MANY_JOBS", code::kResourceExhausted};
// The reader of a watch is too slow: go on from the last revision that came. Metadata: revision.
inline constexpr ErrorReason kWatchLagged{"WATCH_LAGGED", code::kAborted};
// The resource is not what the caller has seen. Metadata: etag, the current one; none if there is
// no such resource.
inline constexpr ErrorReason kEtagMismatch{"ETAG_MISMATCH", code::kAborted};
// The stored state changed under the call: read again.
inline constexpr ErrorReason kConcurrentUpdate{"CONCURRENT_UPDATE", code::kAborted};
inline constexpr ErrorReason kSizeOutOfRange{"SIZE_OUT_OF_RANGE", code::kOutOfRange};
inline constexpr ErrorReason kOffsetBeyondEnd{"OFFSET_BEYOND_END", code::kOutOfRange};
inline constexpr ErrorReason kRevisionCompacted{"REVISION_COMPACTED", code::kOutOfRange};

// The daemon.
inline constexpr ErrorReason kPermissionDenied{"PERMISSION_DENIED", code::kPermissionDenied};
// Too many calls wait for a thread. Metadata: limit.
inline constexpr ErrorReason kRateLimited{"RATE_LIMITED", code::kResourceExhausted};
inline constexpr ErrorReason kDraining{"DRAINING", code::kUnavailable};
inline constexpr ErrorReason kInternal{"INTERNAL", code::kInternal};
}  // namespace reason

// Every reason of the table above.
std::span<const ErrorReason> AllReasons();

// The reason of that name, or null.
const ErrorReason* FindReason(std::string_view name);

// The reason of an error that nobody gave one: INTERNAL for INTERNAL and UNKNOWN, and the code's
// own name for the others.
std::string_view FallbackReason(absl::StatusCode code);

}  // namespace gabion::service
