#include "engine/io/errno_status.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <string>

#include "engine/base/reason.h"

namespace gabion::io {
namespace {

TEST(ErrnoStatusTest, EachErrorHasTheMostSpecificCode) {
  using Code = absl::StatusCode;
  const struct {
    int error;
    Code code;
  } kTable[] = {
      {ENOSPC, Code::kResourceExhausted},
      {EDQUOT, Code::kResourceExhausted},
      {EFBIG, Code::kResourceExhausted},
      {EIO, Code::kDataLoss},
      {EUCLEAN, Code::kDataLoss},
      {EACCES, Code::kPermissionDenied},
      {EPERM, Code::kPermissionDenied},
      {EROFS, Code::kPermissionDenied},
      {ENOENT, Code::kNotFound},
      {EEXIST, Code::kAlreadyExists},
      {EOPNOTSUPP, Code::kUnimplemented},
      {ENOSYS, Code::kUnimplemented},
      {ECONNRESET, Code::kUnavailable},
      {EMFILE, Code::kUnavailable},
      {EBADF, Code::kUnknown},
      {99999, Code::kUnknown},
  };
  for (const auto& row : kTable) {
    EXPECT_EQ(ErrnoStatus(row.error, "write").code(), row.code) << row.error;
  }
}

TEST(ErrnoStatusTest, FileThatIsTooLargeIsNotAFullDisk) {
  EXPECT_EQ(ReasonOf(ErrnoStatus(EFBIG, "write"))->reason, "SIZE_OUT_OF_RANGE");
  EXPECT_FALSE(ReasonOf(ErrnoStatus(ENOSPC, "write")).has_value());
}

TEST(ErrnoStatusTest, MessagesSayWhatWasTriedAndWhatHappened) {
  EXPECT_EQ(std::string(ErrnoStatus(ENOSPC, "write").message()), "write: No space left on device");
  EXPECT_EQ(std::string(ErrnoStatus(99999, "write").message()), "write: error 99999");
}

}  // namespace
}  // namespace gabion::io
