// What a pool's file system has to offer.
#include <errno.h>
#include <fcntl.h>
#include <sys/statvfs.h>

#include "engine/io/directory.h"
#include "engine/io/errno_status.h"

namespace gabion::io {

absl::StatusOr<UniqueFd> Directory::CreateUnnamed() const {
  UniqueFd file(openat(fd_.get(), ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  // EISDIR: the kernel does not know the flag.
  if (!file.valid()) return ErrnoStatus(errno == EISDIR ? EOPNOTSUPP : errno, "create");
  return file;
}

absl::StatusOr<DirectorySpace> Directory::Space() const {
  struct statvfs space;
  if (fstatvfs(fd_.get(), &space) != 0) return ErrnoStatus(errno, "stat the file system");
  DirectorySpace answer;
  answer.size = ByteCount{uint64_t{space.f_blocks} * space.f_frsize};
  answer.available = ByteCount{uint64_t{space.f_bavail} * space.f_frsize};
  // A file that never gets a name; where there are none such, nothing is claimed.
  const absl::StatusOr<UniqueFd> unnamed = CreateUnnamed();
  if (!unnamed.ok()) return answer;
  const int probe = unnamed->get();
  constexpr int kPunch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  answer.punch_holes = ftruncate(probe, 4096) == 0 && fallocate(probe, kPunch, 0, 4096) == 0;
  const int flags = fcntl(probe, F_GETFL);
  answer.direct_io = flags >= 0 && fcntl(probe, F_SETFL, flags | O_DIRECT) == 0;
  return answer;
}

}  // namespace gabion::io
