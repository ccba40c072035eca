#include "engine/io/errno_status.h"

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/reason.h"
#include "engine/base/text.h"

namespace gabion::io {
namespace {

absl::StatusCode CodeOf(int error) {
  switch (error) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return absl::StatusCode::kResourceExhausted;
    // What a medium, its controller or a file system's checksum reports.
    case EIO:
    case ENODATA:
    case EILSEQ:
    case EBADMSG:
    case EUCLEAN:
    case EREMOTEIO:
      return absl::StatusCode::kDataLoss;
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::StatusCode::kPermissionDenied;
    case ENOENT:
    case ENOTDIR:
      return absl::StatusCode::kNotFound;
    case EEXIST:
      return absl::StatusCode::kAlreadyExists;
    case EOPNOTSUPP:
    case ENOSYS:
      return absl::StatusCode::kUnimplemented;
    case ENAMETOOLONG:
      return absl::StatusCode::kInvalidArgument;
    // May work later, or with another peer.
    case ENOMEM:
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOLCK:
    case EAGAIN:
    case EPIPE:
    case ECONNRESET:
    case ECONNREFUSED:
    case ECONNABORTED:
    case ETIMEDOUT:
    case ENETUNREACH:
    case EHOSTUNREACH:
    case ENOTCONN:
      return absl::StatusCode::kUnavailable;
    default:
      return absl::StatusCode::kUnknown;
  }
}

}  // namespace

absl::Status ErrnoStatus(int error, std::string_view operation) {
  CHECK_GT(error, 0);
  const char* description = strerrordesc_np(error);
  const std::string cause = description != nullptr ? description : absl::StrCat("error ", error);
  absl::Status status(CodeOf(error), absl::StrCat(AsAbsl(operation), ": ", cause));
  // No space helps: a file cannot be that large here.
  return error == EFBIG ? WithReason(std::move(status), {"SIZE_OUT_OF_RANGE", {}}) : status;
}

}  // namespace gabion::io
