#include "engine/io/buffered_file.h"

#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <utility>

#include "engine/io/errno_status.h"

namespace gabion::io {
namespace {

// A larger copy would hold the shard for too long.
constexpr std::size_t kMaxWriteNow = kMiB;
constexpr runtime::Duration kSlowWrite = std::chrono::milliseconds(1);
constexpr runtime::Duration kSlowWritePause = std::chrono::milliseconds(100);

}  // namespace

BufferedFile::BufferedFile(UniqueFd fd, FileTraits traits, std::unique_ptr<FileCalls> calls,
                           runtime::Workers& workers)
    : OsFile(std::move(fd), traits, std::move(calls), workers),
      clock_(workers.clock()),
      read_flags_(traits.in_memory ? 0 : RWF_NOWAIT),
      write_flags_(traits.in_memory ? 0 : RWF_NOWAIT) {}

Task<absl::Status> BufferedFile::Read(ByteOffset offset, MutableBytes dst) {
  const std::size_t done = read_now_ ? ReadNow(offset, dst) : 0;
  if (done == dst.size()) return absl::OkStatus();
  return ReadRest(ByteOffset{offset.value + done}, dst.subspan(done));
}

std::size_t BufferedFile::ReadNow(ByteOffset offset, MutableBytes dst) {
  std::size_t done = 0;
  while (done < dst.size()) {
    const iovec piece{dst.data() + done, dst.size() - done};
    const ssize_t got =
        preadv2(fd(), &piece, 1, static_cast<off_t>(offset.value + done), read_flags_);
    if (got > 0) {
      done += static_cast<std::size_t>(got);
    } else if (got == 0) {  // the end of the file
      std::fill(dst.begin() + static_cast<std::ptrdiff_t>(done), dst.end(), std::byte{0});
      return dst.size();
    } else {
      // Other errors come again, and are reported, when the rest is read.
      if (errno == EOPNOTSUPP) read_now_ = false;
      break;
    }
  }
  return done;
}

Task<absl::Status> BufferedFile::ReadRest(ByteOffset offset, MutableBytes dst) {
  std::size_t done = 0;
  while (done < dst.size()) {
    const ByteOffset at{offset.value + done};
    const int64_t got = co_await calls().Read(fd(), dst.subspan(done), at);
    if (got == -EINTR) continue;
    if (got < 0) co_return ErrnoStatus(static_cast<int>(-got), "read");
    if (got == 0) break;
    done += static_cast<std::size_t>(got);
  }
  std::fill(dst.begin() + static_cast<std::ptrdiff_t>(done), dst.end(), std::byte{0});
  co_return absl::OkStatus();
}

Task<absl::Status> BufferedFile::Write(ByteOffset offset, Bytes src, bool durable) {
  std::size_t done = 0;
  if (!durable && src.size() <= kMaxWriteNow) done = WriteNow(offset, src);
  if (done == src.size()) return absl::OkStatus();
  return WriteFully(fd(), ByteOffset{offset.value + done}, src.subspan(done), durable);
}

std::size_t BufferedFile::WriteNow(ByteOffset offset, Bytes src) {
  runtime::Instant start;
  if (write_flags_ == 0) {
    start = clock_.Now();
    if (start < write_now_after_) return 0;
  }
  std::size_t done = 0;
  while (done < src.size()) {
    const iovec piece{const_cast<std::byte*>(src.data()) + done, src.size() - done};
    const ssize_t written =
        pwritev2(fd(), &piece, 1, static_cast<off_t>(offset.value + done), write_flags_);
    if (written <= 0) {
      if (written == 0 || errno != EOPNOTSUPP || write_flags_ == 0) break;
      write_flags_ = 0;
      start = clock_.Now();
      continue;
    }
    done += static_cast<std::size_t>(written);
    GrowTo(ByteOffset{offset.value + done});
  }
  if (write_flags_ == 0) {
    const runtime::Instant end = clock_.Now();
    if (end - start > kSlowWrite) write_now_after_ = end + kSlowWritePause;
  }
  return done;
}

}  // namespace gabion::io
