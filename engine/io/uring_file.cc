#include "engine/io/uring_file.h"

#include <utility>

#include "engine/io/file_calls.h"
#include "engine/io/os_file.h"

namespace gabion::io {
namespace {

class RingCalls final : public FileCalls {
 public:
  explicit RingCalls(Ring& ring) : ring_(ring) {}

  std::string_view name() const override { return "io_uring"; }

  Task<int64_t> Read(int fd, MutableBytes dst, ByteOffset offset) override {
    const int result = co_await ring_.Read(fd, dst, offset);
    co_return result;
  }
  Task<int64_t> Write(int fd, Bytes src, ByteOffset offset, bool durable) override {
    const int result = co_await ring_.Write(fd, src, offset, durable);
    co_return result;
  }
  Task<int64_t> DataSync(int fd) override {
    const int result = co_await ring_.DataSync(fd);
    co_return result;
  }
  Task<int64_t> Allocate(int fd, int mode, ByteRange range) override {
    const int result = co_await ring_.Allocate(fd, mode, range);
    co_return result;
  }

 private:
  Ring& ring_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<File>> NewUringFile(UniqueFd fd, Ring& ring,
                                                   runtime::Workers& workers) {
  return NewOsFile(std::move(fd), std::make_unique<RingCalls>(ring), workers);
}

}  // namespace gabion::io
