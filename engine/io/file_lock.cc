#include "engine/io/file_lock.h"

#include <fcntl.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/base/text.h"
#include "engine/io/errno_status.h"

namespace gabion::io {
namespace {

constexpr int kPermissions = 4;
constexpr off_t kUsed = 100;
constexpr off_t kForbidden = 200;
constexpr std::array<const char*, kPermissions> kNames = {"consistent read", "write",
                                                          "write unchanged", "resize"};

// Bit i: permission i.
struct LockSet {
  unsigned used = 0;
  unsigned forbidden = 0;
};

constexpr LockSet SetOf(LockMode mode) {
  constexpr unsigned kRead = 1, kWriteAndResize = 0b1010;
  return {mode == LockMode::kWriter ? kRead | kWriteAndResize : kRead, kWriteAndResize};
}

struct flock ByteLock(short type, off_t byte) {
  struct flock lock = {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = byte;
  lock.l_len = 1;
  return lock;
}

absl::Status Conflict(off_t byte) {
  const bool used = byte < kForbidden;
  const char* name = kNames[static_cast<std::size_t>(byte - (used ? kUsed : kForbidden))];
  absl::Status status = absl::FailedPreconditionError(
      absl::StrCat("the image is in use: another opener ", used ? "has" : "forbids", " \"", name,
                   "\" (lock byte ", byte, ")"));
  status.SetPayload(AsAbsl(kLockBytePayload), absl::Cord(absl::StrCat(byte)));
  return status;
}

absl::Status SetByte(int fd, short type, off_t byte) {
  struct flock lock = ByteLock(type, byte);
  if (fcntl(fd, F_OFD_SETLK, &lock) == 0) return absl::OkStatus();
  if (errno == EAGAIN || errno == EACCES) return Conflict(byte);
  return ErrnoStatus(errno, "lock");
}

// Does anybody else hold `byte`?
absl::Status TestByte(int fd, off_t byte) {
  struct flock lock = ByteLock(F_WRLCK, byte);
  if (fcntl(fd, F_OFD_GETLK, &lock) != 0) return ErrnoStatus(errno, "lock");
  return lock.l_type == F_UNLCK ? absl::OkStatus() : Conflict(byte);
}

// Unlocking bytes that one holds cannot fail but for a lack of memory to split a range; the locks
// are single bytes, and too many locks are safe.
void UnlockBytes(int fd, LockSet set) {
  for (int i = 0; i < kPermissions; ++i) {
    for (const auto& [bits, base] : {std::pair(set.used, kUsed), {set.forbidden, kForbidden}}) {
      if ((bits >> i & 1) != 0) static_cast<void>(SetByte(fd, F_UNLCK, base + i));
    }
  }
}

absl::Status LockBytes(int fd, LockSet set) {
  for (int i = 0; i < kPermissions; ++i) {
    if ((set.used >> i & 1) != 0) RETURN_IF_ERROR(SetByte(fd, F_RDLCK, kUsed + i));
    if ((set.forbidden >> i & 1) != 0) RETURN_IF_ERROR(SetByte(fd, F_RDLCK, kForbidden + i));
  }
  return absl::OkStatus();
}

// Who uses something must not find it forbidden; who forbids something must not find it used.
absl::Status TestAgainstOthers(int fd, LockSet set) {
  for (int i = 0; i < kPermissions; ++i) {
    if ((set.used >> i & 1) != 0) RETURN_IF_ERROR(TestByte(fd, kForbidden + i));
    if ((set.forbidden >> i & 1) != 0) RETURN_IF_ERROR(TestByte(fd, kUsed + i));
  }
  return absl::OkStatus();
}

LockSet Without(LockSet set, LockSet other) {
  return {set.used & ~other.used, set.forbidden & ~other.forbidden};
}

}  // namespace

absl::Status FileLock::Acquire(LockMode mode) {
  const LockSet before = mode_.has_value() ? SetOf(*mode_) : LockSet{};
  const LockSet after = SetOf(mode);
  const LockSet added = Without(after, before);
  // Take first, look then: of two who do so at the same time, at least one sees the other.
  absl::Status status = LockBytes(fd_, added);
  if (status.ok()) status = TestAgainstOthers(fd_, after);
  if (!status.ok()) {
    UnlockBytes(fd_, added);
    return status;
  }
  UnlockBytes(fd_, Without(before, after));
  mode_ = mode;
  return absl::OkStatus();
}

void FileLock::Release() {
  if (mode_.has_value()) UnlockBytes(fd_, SetOf(*mode_));
  mode_.reset();
}

}  // namespace gabion::io
