#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/align.h"
#include "engine/base/status_macros.h"
#include "engine/io/buffered_file.h"
#include "engine/io/direct_file.h"
#include "engine/io/errno_status.h"
#include "engine/io/os_file.h"

namespace gabion::io {
namespace {

absl::Status Failed(std::string_view operation) { return ErrnoStatus(errno, operation); }

// A page always suffices for direct I/O; devices may allow less.
constexpr uint32_t kPage = 4096;

absl::Status InspectBlockDevice(int fd, FileTraits& traits) {
  uint64_t size = 0;
  if (ioctl(fd, BLKGETSIZE64, &size) != 0) return Failed("ioctl(BLKGETSIZE64)");
  traits.size.value = size;
  traits.block_device = true;
  if (!traits.direct) return absl::OkStatus();
  int block = 0;
  if (ioctl(fd, BLKSSZGET, &block) != 0) return Failed("ioctl(BLKSSZGET)");
  const auto unit = static_cast<uint32_t>(block);
  traits.alignment = block > 0 && IsPowerOfTwo(unit) ? std::max(unit, 512u) : kPage;
  return absl::OkStatus();
}

// What the file system asks of direct I/O, in memory and in the file.
uint32_t DirectAlignment(int fd) {
#ifdef STATX_DIOALIGN
  struct statx details = {};
  if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &details) == 0 &&
      (details.stx_mask & STATX_DIOALIGN) != 0) {
    const uint32_t asked = std::max(details.stx_dio_mem_align, details.stx_dio_offset_align);
    if (IsPowerOfTwo(asked)) return std::max(asked, DirectFile::kTailUnit);
  }
#else
  static_cast<void>(fd);
#endif
  return DirectFile::kTailUnit;
}

absl::Status InspectRegularFile(int fd, const struct stat& details, FileTraits& traits) {
  traits.size.value = static_cast<uint64_t>(details.st_size);
  struct statfs fs;
  if (fstatfs(fd, &fs) != 0) return Failed("fstatfs");
  traits.in_memory = fs.f_type == TMPFS_MAGIC;
  if (traits.direct) traits.alignment = DirectAlignment(fd);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<FileTraits> InspectFile(int fd) {
  const int flags = fcntl(fd, F_GETFL);
  if (flags < 0) return Failed("fcntl(F_GETFL)");
  struct stat details;
  if (fstat(fd, &details) != 0) return Failed("fstat");
  FileTraits traits;
  traits.writable = (flags & O_ACCMODE) == O_RDWR;
  traits.direct = (flags & O_DIRECT) != 0;
  if (S_ISBLK(details.st_mode)) {
    RETURN_IF_ERROR(InspectBlockDevice(fd, traits));
  } else if (S_ISREG(details.st_mode)) {
    RETURN_IF_ERROR(InspectRegularFile(fd, details, traits));
  } else {
    return absl::InvalidArgumentError("neither a regular file nor a block device");
  }
  return traits;
}

absl::StatusOr<std::unique_ptr<File>> NewOsFile(UniqueFd fd, std::unique_ptr<FileCalls> calls,
                                                runtime::Workers& workers) {
  ASSIGN_OR_RETURN(const FileTraits traits, InspectFile(fd.get()));
  const int flags = fcntl(fd.get(), F_GETFL);
  if ((flags & O_NONBLOCK) != 0 && fcntl(fd.get(), F_SETFL, flags & ~O_NONBLOCK) != 0) {
    return Failed("fcntl(F_SETFL)");
  }
  if (!traits.direct) {
    return std::make_unique<BufferedFile>(std::move(fd), traits, std::move(calls), workers);
  }
  UniqueFd tail;
  if (traits.writable && !traits.block_device) {
    const std::string self = absl::StrCat("/proc/self/fd/", fd.get());
    tail = UniqueFd(open(self.c_str(), O_RDWR | O_CLOEXEC));
    if (!tail.valid()) return Failed("open of a buffered descriptor for the end of the file");
  }
  return std::make_unique<DirectFile>(std::move(fd), std::move(tail), traits, std::move(calls),
                                      workers);
}

}  // namespace gabion::io
