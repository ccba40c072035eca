#include "engine/io/file_map.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "engine/base/check.h"
#include "engine/io/errno_status.h"

namespace gabion::io {
namespace {

// Where the data or the hole that is sought starts, at most `end`; negative errno.
int64_t Seek(int fd, uint64_t from, uint64_t end, int whence) {
  const off_t found = lseek(fd, static_cast<off_t>(from), whence);
  if (found >= 0) return std::min(static_cast<int64_t>(found), static_cast<int64_t>(end));
  if (errno == ENXIO) return static_cast<int64_t>(end);  // nothing but a hole up to the end
  return -errno;
}

bool CannotTell(int64_t error) {
  return error == -EINVAL || error == -EOPNOTSUPP || error == -ENOSYS || error == -ESPIPE;
}

}  // namespace

absl::StatusOr<std::vector<FileExtent>> MapFile(int fd, ByteRange range, std::size_t max_extents) {
  CHECK(!range.empty());
  CHECK_GE(max_extents, 1u);
  std::vector<FileExtent> extents;
  const uint64_t end = range.end().value;
  uint64_t begin = range.offset.value;
  while (begin < end && extents.size() < max_extents) {
    const int64_t data = Seek(fd, begin, end, SEEK_DATA);
    if (CannotTell(data)) {
      extents.push_back({Range(begin, end - begin), false});
      break;
    }
    if (data < 0) return ErrnoStatus(static_cast<int>(-data), "lseek(SEEK_DATA)");
    if (static_cast<uint64_t>(data) > begin) {
      extents.push_back({Range(begin, static_cast<uint64_t>(data) - begin), true});
      begin = static_cast<uint64_t>(data);
      continue;
    }
    const int64_t hole = Seek(fd, begin, end, SEEK_HOLE);
    if (hole < 0) return ErrnoStatus(static_cast<int>(-hole), "lseek(SEEK_HOLE)");
    // A hole right here was punched between the two calls: data is the answer that is never wrong.
    const uint64_t data_end =
        static_cast<uint64_t>(hole) > begin ? static_cast<uint64_t>(hole) : end;
    extents.push_back({Range(begin, data_end - begin), false});
    begin = data_end;
  }
  return extents;
}

}  // namespace gabion::io
