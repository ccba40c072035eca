// The reasons of errors (google.rpc.ErrorInfo.reason) that Gabion sends, each with its status code:
// one table, so that a reason never comes with two codes.
#pragma once

#include <span>
#include <string_view>

#include "absl/status/status.h"

namespace gabion::service {

// ErrorInfo.domain of every reason.
inline constexpr std::string_view kErrorDomain = "gabion";

struct Reason {
  std::string_view name;  // at most 63 characters, [A-Z][A-Z0-9_]+[A-Z0-9] (AIP-193)
  absl::StatusCode code;
};

// In the comments: the metadata keys that come with the reason.
namespace code {
using enum absl::StatusCode;
}
namespace reason {

// Field values. Metadata: field, and value and allowed where there is a value.
inline constexpr Reason kFieldRequired{"FIELD_REQUIRED", code::kInvalidArgument};
inline constexpr Reason kFieldImmutable{"FIELD_IMMUTABLE", code::kInvalidArgument};
inline constexpr Reason kFieldMaskInvalid{"FIELD_MASK_INVALID", code::kInvalidArgument};
inline constexpr Reason kFieldInvalid{"FIELD_INVALID", code::kInvalidArgument};
inline constexpr Reason kFieldOutOfRange{"FIELD_OUT_OF_RANGE", code::kInvalidArgument};
inline constexpr Reason kFieldNotPowerOfTwo{"FIELD_NOT_POWER_OF_TWO", code::kInvalidArgument};
inline constexpr Reason kFieldOrder{"FIELD_ORDER", code::kInvalidArgument};
inline constexpr Reason kFieldTooLong{"FIELD_TOO_LONG", code::kInvalidArgument};
inline constexpr Reason kFieldTooShort{"FIELD_TOO_SHORT", code::kInvalidArgument};
inline constexpr Reason kNameInvalid{"NAME_INVALID", code::kInvalidArgument};
inline constexpr Reason kPageSizeNegative{"PAGE_SIZE_NEGATIVE", code::kInvalidArgument};
inline constexpr Reason kPageTokenInvalid{"PAGE_TOKEN_INVALID", code::kInvalidArgument};

// Block sizes. Metadata: field, value, allowed; BELOW_STORAGE: minimum, determined_by.
inline constexpr Reason kBlockSizeNotPowerOfTwo{"BLOCK_SIZE_NOT_POWER_OF_TWO",
                                                code::kInvalidArgument};
inline constexpr Reason kBlockSizeOutOfRange{"BLOCK_SIZE_OUT_OF_RANGE", code::kInvalidArgument};
inline constexpr Reason kBlockSizeOrder{"BLOCK_SIZE_ORDER", code::kInvalidArgument};
inline constexpr Reason kBlockSizeBelowStorage{"BLOCK_SIZE_BELOW_STORAGE", code::kInvalidArgument};
// Metadata: size, minimum.
inline constexpr Reason kSizeNotMultipleOfMinimum{"SIZE_NOT_MULTIPLE_OF_MINIMUM",
                                                  code::kFailedPrecondition};

// Images. Metadata: field.
inline constexpr Reason kShrinkNotAllowed{"SHRINK_NOT_ALLOWED", code::kInvalidArgument};
inline constexpr Reason kFormatMismatch{"FORMAT_MISMATCH", code::kInvalidArgument};
inline constexpr Reason kSizeMismatch{"SIZE_MISMATCH", code::kInvalidArgument};
// Metadata: image, and dependents or exports where there are some.
inline constexpr Reason kImageInUse{"IMAGE_IN_USE", code::kFailedPrecondition};
inline constexpr Reason kImageNotActive{"IMAGE_NOT_ACTIVE", code::kFailedPrecondition};
// Metadata: perm-byte.
inline constexpr Reason kImageLocked{"IMAGE_LOCKED", code::kFailedPrecondition};
// The file carries the identity of another image; cannot be opened for writing. Metadata: image.
inline constexpr Reason kImageReplaced{"IMAGE_REPLACED", code::kFailedPrecondition};
inline constexpr Reason kImageNotWritable{"IMAGE_NOT_WRITABLE", code::kFailedPrecondition};
inline constexpr Reason kImageCorrupt{"IMAGE_CORRUPT", code::kDataLoss};
inline constexpr Reason kPathOutsidePool{"PATH_OUTSIDE_POOL", code::kPermissionDenied};
inline constexpr Reason kPoolFull{"POOL_FULL", code::kResourceExhausted};
inline constexpr Reason kPoolUnreachable{"POOL_UNREACHABLE", code::kUnavailable};

// Exports. Metadata: export.
inline constexpr Reason kExportHasConnections{"EXPORT_HAS_CONNECTIONS", code::kFailedPrecondition};
inline constexpr Reason kExportReadOnly{"EXPORT_READ_ONLY", code::kFailedPrecondition};
inline constexpr Reason kTooManyExports{"TOO_MANY_EXPORTS", code::kResourceExhausted};
inline constexpr Reason kFeatureNotBuilt{"FEATURE_NOT_BUILT", code::kUnimplemented};

// Any resource. Metadata: field where the resource is named inside a request.
inline constexpr Reason kResourceNotFound{"RESOURCE_NOT_FOUND", code::kNotFound};
inline constexpr Reason kResourceExists{"RESOURCE_EXISTS", code::kAlreadyExists};
// Metadata: differing-fields.
inline constexpr Reason kResourceExistsDifferent{"RESOURCE_EXISTS_DIFFERENT", code::kAlreadyExists};
// Metadata: operation, where it has a name.
inline constexpr Reason kOperationInProgress{"OPERATION_IN_PROGRESS", code::kAborted};
// The stored state changed under the call: read again.
inline constexpr Reason kConcurrentUpdate{"CONCURRENT_UPDATE", code::kAborted};
inline constexpr Reason kSizeOutOfRange{"SIZE_OUT_OF_RANGE", code::kOutOfRange};
inline constexpr Reason kOffsetBeyondEnd{"OFFSET_BEYOND_END", code::kOutOfRange};
inline constexpr Reason kRevisionCompacted{"REVISION_COMPACTED", code::kOutOfRange};

// The daemon.
inline constexpr Reason kPermissionDenied{"PERMISSION_DENIED", code::kPermissionDenied};
inline constexpr Reason kDraining{"DRAINING", code::kUnavailable};
inline constexpr Reason kInternal{"INTERNAL", code::kInternal};
}  // namespace reason

// Every reason of the table above.
std::span<const Reason> AllReasons();

// The reason of that name, or null.
const Reason* FindReason(std::string_view name);

// The reason of an error that nobody gave one: INTERNAL for INTERNAL and UNKNOWN, and the code's
// own name for the others.
std::string_view FallbackReason(absl::StatusCode code);

}  // namespace gabion::service
