// Real files over every driver, buffered and direct: one suite for all of them.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/base/units.h"
#include "engine/io/file.h"
#include "engine/io/pool_file.h"
#include "engine/io/ring.h"
#include "engine/io/uring_file.h"
#include "engine/runtime/reactor.h"
#include "engine/runtime/worker_pool.h"
#include "tests/support_io/finish.h"
#include "tests/support_io/temp_dir.h"

namespace gabion::io {

struct FileCase {
  bool uring;
  bool direct;
};

inline std::string NameOf(const testing::TestParamInfo<FileCase>& info) {
  return std::string(info.param.uring ? "Uring" : "Threads") +
         (info.param.direct ? "Direct" : "Buffered");
}

// Memory aligned for direct I/O.
class AlignedBytes {
 public:
  explicit AlignedBytes(std::size_t size, int fill = 0)
      : size_(size),
        memory_(static_cast<std::byte*>(std::aligned_alloc(4096, (size / 4096 + 1) * 4096)),
                &std::free) {
    std::memset(memory_.get(), fill, size);
  }
  MutableBytes span() { return {memory_.get(), size_}; }
  std::byte& operator[](std::size_t i) { return memory_.get()[i]; }
  bool AllEqual(std::size_t from, std::size_t to, int value) const {
    for (std::size_t i = from; i < to; ++i) {
      if (memory_.get()[i] != std::byte(value)) return false;
    }
    return true;
  }

 private:
  std::size_t size_;
  std::unique_ptr<std::byte, decltype(&std::free)> memory_;
};

class FileTest : public testing::TestWithParam<FileCase> {
 protected:
  void SetUp() override {
    if (!GetParam().uring) return;
    auto ring = Ring::Create(reactor_, {});
    if (!ring.ok()) GTEST_SKIP() << "this host refuses io_uring: " << ring.status();
    ring_ = std::move(ring).value();
  }

  void TearDown() override {
    if (file_ != nullptr) {
      EXPECT_TRUE(Finish(file_->Close()).ok());
    }
    if (ring_ != nullptr) test::Finish(reactor_, ring_->Close());
  }

  template <typename T>
  T Finish(Task<T> task) {
    return test::Finish(reactor_, std::move(task));
  }

  bool direct() const { return GetParam().direct; }
  // The unit in which this suite addresses the file.
  std::size_t unit() const { return direct() ? 4096 : 1; }

  absl::StatusOr<std::unique_ptr<File>> Wrap(UniqueFd fd) {
    if (GetParam().uring) return NewUringFile(std::move(fd), *ring_, workers_);
    return NewPoolFile(std::move(fd), workers_);
  }

  // Opens `path`, which is created with `size` bytes of hole if it is not there.
  void Open(const std::string& path, uint64_t size, int flags = O_RDWR) {
    UniqueFd created(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    ASSERT_TRUE(created.valid()) << path << ": " << std::strerror(errno);
    struct stat details;
    ASSERT_EQ(fstat(created.get(), &details), 0);
    if (details.st_size == 0) {
      ASSERT_EQ(ftruncate(created.get(), static_cast<off_t>(size)), 0);
    }
    UniqueFd fd(open(path.c_str(), flags | O_CLOEXEC | (direct() ? O_DIRECT : 0)));
    if (!fd.valid() && errno == EINVAL && direct()) GTEST_SKIP() << "no O_DIRECT on " << path;
    ASSERT_TRUE(fd.valid()) << path << ": " << std::strerror(errno);
    auto file = Wrap(std::move(fd));
    ASSERT_TRUE(file.ok()) << file.status();
    file_ = std::move(file).value();
  }

  absl::Status Write(uint64_t offset, MutableBytes src, bool durable = false) {
    return Finish(file_->Write(ByteOffset{offset}, src, durable));
  }
  absl::Status Read(uint64_t offset, MutableBytes dst) {
    return Finish(file_->Read(ByteOffset{offset}, dst));
  }

  test::TempDir dir_;
  runtime::Reactor reactor_{{}};
  runtime::WorkerPool pool_{"worker", 3};
  runtime::Workers workers_{pool_, reactor_};
  std::unique_ptr<Ring> ring_;
  std::unique_ptr<File> file_;
};

}  // namespace gabion::io
