#include "engine/image_fill.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "engine/base/status_macros.h"
#include "engine/base/units.h"
#include "engine/io/errno_status.h"

namespace gabion::engine {
namespace {

// What a step costs at least: it bounds how many holes a piece passes.
constexpr uint64_t kStepCost = 4096;
// Reserving space is that much cheaper than writing.
constexpr uint64_t kReserveFactor = 64;
constexpr uint64_t kBuffer = kMiB;

struct Run {
  uint64_t end = 0;
  bool hole = false;
};

// The run of data or of a hole that begins at `at`, which is before the end.
Run RunAt(const FillJob& job, uint64_t at) {
  const uint64_t tables = job.layout == nullptr ? 0 : job.layout->metadata_bytes();
  if (job.from < 0) return at < tables ? Run{tables, false} : Run{job.size, true};
  const off_t data = lseek(job.from, static_cast<off_t>(at), SEEK_DATA);
  if (data < 0) return {job.size, errno == ENXIO};  // other errors: it cannot tell, so all is data
  if (static_cast<uint64_t>(data) > at) {
    return {std::min(static_cast<uint64_t>(data), job.size), true};
  }
  const off_t hole = lseek(job.from, data, SEEK_HOLE);
  if (hole < 0) return {job.size, false};
  return {std::min(static_cast<uint64_t>(hole), job.size), false};
}

absl::Status WriteAt(int fd, const char* data, uint64_t length, uint64_t at) {
  while (length > 0) {
    const ssize_t written = pwrite(fd, data, length, static_cast<off_t>(at));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return io::ErrnoStatus(errno, "write");
    data += written;
    at += static_cast<uint64_t>(written);
    length -= static_cast<uint64_t>(written);
  }
  return absl::OkStatus();
}

absl::Status WriteZeros(int fd, uint64_t at, uint64_t end) {
  const std::vector<char> zeros(std::min(kBuffer, end - at));
  for (; at < end; at += std::min<uint64_t>(zeros.size(), end - at)) {
    RETURN_IF_ERROR(WriteAt(fd, zeros.data(), std::min<uint64_t>(zeros.size(), end - at), at));
  }
  return absl::OkStatus();
}

absl::Status SourceShrank() {
  return absl::FailedPreconditionError("the source became shorter while it was copied");
}

// Where the kernel does not copy between the two by itself.
absl::Status CopyThroughMemory(const FillJob& job, uint64_t at, uint64_t end) {
  std::vector<char> buffer(std::min(kBuffer, end - at));
  while (at < end) {
    const uint64_t want = std::min<uint64_t>(buffer.size(), end - at);
    const ssize_t got = pread(job.from, buffer.data(), want, static_cast<off_t>(at));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return io::ErrnoStatus(errno, "read");
    if (got == 0) return SourceShrank();
    RETURN_IF_ERROR(WriteAt(job.to, buffer.data(), static_cast<uint64_t>(got), at));
    at += static_cast<uint64_t>(got);
  }
  return absl::OkStatus();
}

absl::Status WriteTables(const FillJob& job, uint64_t at, uint64_t end) {
  std::vector<std::byte> buffer(std::min(kBuffer, end - at));
  while (at < end) {
    const uint64_t length = std::min<uint64_t>(buffer.size(), end - at);
    job.layout->Fill(at, MutableBytes(buffer).first(length));
    RETURN_IF_ERROR(WriteAt(job.to, reinterpret_cast<const char*>(buffer.data()), length, at));
    at += length;
  }
  return absl::OkStatus();
}

absl::Status Copy(const FillJob& job, uint64_t at, uint64_t end) {
  if (job.layout != nullptr) return WriteTables(job, at, end);
  while (at < end) {
    off_t from = static_cast<off_t>(at);
    off_t to = from;
    const auto want = static_cast<std::size_t>(std::min(end - at, kGiB));
    const ssize_t copied = copy_file_range(job.from, &from, job.to, &to, want, 0);
    if (copied < 0 && errno == EINTR) continue;
    const bool cannot =
        copied < 0 && (errno == EINVAL || errno == EXDEV || errno == ENOSYS || errno == EOPNOTSUPP);
    if (cannot) return CopyThroughMemory(job, at, end);
    if (copied < 0) return io::ErrnoStatus(errno, "copy");
    if (copied == 0) return SourceShrank();
    at += static_cast<uint64_t>(copied);
  }
  return absl::OkStatus();
}

// Sees to the hole from `at` to `end`, as far as `budget` goes; returns where it got, and takes
// from the budget what it cost.
absl::StatusOr<uint64_t> PassHole(const FillJob& job, uint64_t at, uint64_t end, uint64_t& budget) {
  uint64_t cost = 0;
  bool must_write = job.preallocation == Preallocation::kFull;
  if (job.preallocation == Preallocation::kFalloc) {
    const uint64_t length = std::min(end - at, budget > kGiB ? end - at : budget * kReserveFactor);
    int failed;
    do {
      failed =
          fallocate(job.to, 0, static_cast<off_t>(at), static_cast<off_t>(length)) == 0 ? 0 : errno;
    } while (failed == EINTR);
    if (failed != 0 && failed != EOPNOTSUPP) return io::ErrnoStatus(failed, "reserve space");
    must_write = failed == EOPNOTSUPP;
    if (!must_write) {
      end = at + length;
      cost = length / kReserveFactor;
    }
  }
  if (must_write) {
    end = at + std::min(end - at, budget);
    RETURN_IF_ERROR(WriteZeros(job.to, at, end));
    cost = end - at;
  }
  budget -= std::min(budget, std::max(cost, kStepCost));
  return end;
}

}  // namespace

absl::StatusOr<uint64_t> Fill(const FillJob& job, uint64_t begin, uint64_t budget) {
  const bool may_share = job.from >= 0 && begin == 0 && job.preallocation == Preallocation::kOff;
  if (may_share && ioctl(job.to, FICLONE, job.from) == 0) return job.size;
  uint64_t at = begin;
  budget = std::max(budget, kStepCost);
  while (at < job.size && budget > 0) {
    const Run run = RunAt(job, at);
    if (run.hole) {
      ASSIGN_OR_RETURN(at, PassHole(job, at, run.end, budget));
      continue;
    }
    const uint64_t end = at + std::min(run.end - at, budget);
    RETURN_IF_ERROR(Copy(job, at, end));
    budget -= std::min(budget, std::max(end - at, kStepCost));
    at = end;
  }
  return at;
}

}  // namespace gabion::engine
