#include "engine/io/pool_file.h"

#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "engine/io/file_calls.h"
#include "engine/io/os_file.h"

namespace gabion::io {
namespace {

int64_t ResultOf(int64_t returned) { return returned < 0 ? -errno : returned; }

class PoolCalls final : public FileCalls {
 public:
  explicit PoolCalls(runtime::Workers& workers) : workers_(workers) {}

  std::string_view name() const override { return "threads"; }

  Task<int64_t> Read(int fd, MutableBytes dst, ByteOffset offset) override {
    const auto call = [fd, dst, offset] {
      return ResultOf(pread(fd, dst.data(), dst.size(), static_cast<off_t>(offset.value)));
    };
    return workers_.Run(call);
  }
  Task<int64_t> Write(int fd, Bytes src, ByteOffset offset, bool durable) override {
    const auto call = [fd, src, offset, durable] {
      const iovec piece{const_cast<std::byte*>(src.data()), src.size()};
      const int flags = durable ? RWF_DSYNC : 0;
      return ResultOf(pwritev2(fd, &piece, 1, static_cast<off_t>(offset.value), flags));
    };
    return workers_.Run(call);
  }
  Task<int64_t> DataSync(int fd) override {
    const auto call = [fd] { return ResultOf(fdatasync(fd)); };
    return workers_.Run(call);
  }
  Task<int64_t> Allocate(int fd, int mode, ByteRange range) override {
    const auto call = [fd, mode, range] {
      return ResultOf(fallocate(fd, mode, static_cast<off_t>(range.offset.value),
                                static_cast<off_t>(range.length.value)));
    };
    return workers_.Run(call);
  }

 private:
  runtime::Workers& workers_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<File>> NewPoolFile(UniqueFd fd, runtime::Workers& workers) {
  return NewOsFile(std::move(fd), std::make_unique<PoolCalls>(workers), workers);
}

}  // namespace gabion::io
