#include "engine/io/os_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/align.h"
#include "engine/base/check.h"
#include "engine/io/errno_status.h"
#include "engine/io/file_map.h"

namespace gabion::io {
namespace {

// A few seeks are cheaper than a thread hop.
constexpr std::size_t kMaxInlineExtents = 64;
// A hint may ask for a whole disk; the page cache would drop what it has not read yet.
constexpr uint64_t kMaxPrefetch = 64 * kMiB;

bool IsUnsupported(int64_t error) {
  return error == -EOPNOTSUPP || error == -ENOSYS || error == -ENODEV;
}

}  // namespace

OsFile::OsFile(UniqueFd fd, FileTraits traits, std::unique_ptr<FileCalls> calls,
               runtime::Workers& workers)
    : fd_(std::move(fd)), traits_(traits), calls_(std::move(calls)), workers_(workers) {}

void OsFile::GrowTo(ByteOffset end) {
  traits_.size.value = std::max(traits_.size.value, end.value);
}

void OsFile::NoteLoss(const absl::Status& status) {
  if (lost_.ok()) {
    lost_ = absl::DataLossError(
        absl::StrCat("writes may have been lost by an earlier error (", status.message(), ")"));
  }
}

Task<absl::Status> OsFile::WriteFully(int fd, ByteOffset offset, Bytes src, bool durable) {
  std::size_t done = 0;
  while (done < src.size()) {
    const ByteOffset at{offset.value + done};
    const int64_t written = co_await calls_->Write(fd, src.subspan(done), at, durable);
    if (written == -EINTR) continue;
    if (written <= 0) {
      const absl::Status status =
          ErrnoStatus(written == 0 ? EIO : static_cast<int>(-written), "write");
      // The same error will not be reported to the next sync of this descriptor.
      if (durable && absl::IsDataLoss(status)) NoteLoss(status);
      co_return status;
    }
    done += static_cast<std::size_t>(written);
    GrowTo(ByteOffset{offset.value + done});
  }
  co_return absl::OkStatus();
}

Task<absl::Status> OsFile::Zero(ByteRange range, ZeroMode mode) {
  // Past the end everything is zero already, and nothing is to be allocated there.
  const ByteRange inside = Intersect(range, Range(0, traits_.size.value));
  if (inside.empty()) return absl::OkStatus();
  const bool can = mode == ZeroMode::kPunch ? can_punch_ : can_zero_range_;
  if (!can) return ErrnoStatus(EOPNOTSUPP, "fallocate");
  return AllocateFully(inside, mode);
}

Task<absl::Status> OsFile::AllocateFully(ByteRange range, ZeroMode mode) {
  const int flags = FALLOC_FL_KEEP_SIZE |
                    (mode == ZeroMode::kPunch ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE);
  // Never at once on the shard: punching was measured to wait for the file system's journal for up
  // to ten milliseconds.
  int64_t result;
  do {
    result = co_await calls_->Allocate(fd(), flags, range);
  } while (result == -EINTR);
  if (result >= 0) co_return absl::OkStatus();
  if (IsUnsupported(result)) {
    (mode == ZeroMode::kPunch ? can_punch_ : can_zero_range_) = false;
    co_return ErrnoStatus(EOPNOTSUPP, "fallocate");
  }
  // Devices refuse what is no multiple of their blocks; other ranges may still work.
  if (result == -EINVAL && traits_.block_device) co_return ErrnoStatus(EOPNOTSUPP, "fallocate");
  co_return ErrnoStatus(static_cast<int>(-result), "fallocate");
}

Task<absl::Status> OsFile::Sync() {
  if (!lost_.ok()) return lost_;
  return SyncNow();
}

Task<absl::Status> OsFile::SyncNow() {
  int64_t result;
  do {
    result = co_await calls_->DataSync(fd());
  } while (result == -EINTR);
  if (result < 0) {
    const absl::Status status = ErrnoStatus(static_cast<int>(-result), "fdatasync");
    NoteLoss(status);
    co_return status;
  }
  co_return lost_;  // another sync may have got the error that concerns this one too
}

Task<absl::Status> OsFile::Prefetch(ByteRange range) {
  const ByteRange inside = Intersect(range, Range(0, traits_.size.value));
  if (inside.empty() || traits_.direct) co_return absl::OkStatus();
  const auto ask = [fd = fd(), inside] {
    const uint64_t length = std::min(inside.length.value, kMaxPrefetch);
    return posix_fadvise(fd, static_cast<off_t>(inside.offset.value), static_cast<off_t>(length),
                         POSIX_FADV_WILLNEED);
  };
  const int error = co_await workers_.Run(ask);
  if (error != 0) co_return ErrnoStatus(error, "posix_fadvise");
  co_return absl::OkStatus();
}

Task<absl::StatusOr<std::vector<FileExtent>>> OsFile::Map(ByteRange range,
                                                          std::size_t max_extents) {
  CHECK(!range.empty());
  CHECK(FitsWithin(range, traits_.size));
  if (max_extents <= kMaxInlineExtents) return MapFile(fd(), range, max_extents);
  const auto map = [fd = fd(), range, max_extents] { return MapFile(fd, range, max_extents); };
  return workers_.Run(map);
}

Task<absl::Status> OsFile::Resize(ByteCount size) {
  if (traits_.block_device) {
    co_return absl::UnimplementedError("resize: a block device has the size that it has");
  }
  const auto truncate = [fd = fd(), size] {
    int result;
    do {
      result = ftruncate(fd, static_cast<off_t>(size.value));
    } while (result != 0 && errno == EINTR);
    return result == 0 ? 0 : errno;
  };
  if (size.value > static_cast<uint64_t>(INT64_MAX)) co_return ErrnoStatus(EFBIG, "ftruncate");
  const int error = co_await workers_.Run(truncate);
  if (error != 0) co_return ErrnoStatus(error, "ftruncate");
  traits_.size = size;
  co_return absl::OkStatus();
}

Task<absl::Status> OsFile::Close() {
  CHECK(fd_.valid());
  const auto close_fd = [fd = fd_.Release()] { return close(fd) == 0 ? 0 : errno; };
  const int error = co_await workers_.Run(close_fd);
  // The descriptor is gone in any case.
  if (error != 0 && error != EINTR) co_return ErrnoStatus(error, "close");
  co_return absl::OkStatus();
}

}  // namespace gabion::io
