// Files over calls that the test answers: what real disks do too rarely.
#include "engine/io/os_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/runtime/reactor.h"
#include "tests/support_io/finish.h"
#include "tests/support_io/temp_dir.h"

namespace gabion::io {
namespace {

// Gives the results that were scripted, then succeeds. Kept by the file; the test keeps the script.
struct Script {
  std::deque<int64_t> results;
  std::vector<std::string> calls;

  int64_t Next(const std::string& call, int64_t success) {
    calls.push_back(call);
    if (results.empty()) return success;
    const int64_t result = results.front();
    results.pop_front();
    return result;
  }
};

class ScriptedCalls final : public FileCalls {
 public:
  explicit ScriptedCalls(Script& script) : script_(script) {}
  std::string_view name() const override { return "script"; }
  Task<int64_t> Read(int, MutableBytes dst, ByteOffset offset) override {
    const int64_t got =
        script_.Next("read " + std::to_string(offset.value) + "+" + std::to_string(dst.size()),
                     static_cast<int64_t>(dst.size()));
    if (got > 0) std::fill_n(dst.begin(), got, std::byte{9});
    return got;
  }
  Task<int64_t> Write(int, Bytes src, ByteOffset offset, bool durable) override {
    return script_.Next(std::string(durable ? "durable " : "") + "write " +
                            std::to_string(offset.value) + "+" + std::to_string(src.size()),
                        static_cast<int64_t>(src.size()));
  }
  Task<int64_t> DataSync(int) override { return script_.Next("sync", 0); }
  Task<int64_t> Allocate(int, int mode, ByteRange) override {
    return script_.Next((mode & FALLOC_FL_PUNCH_HOLE) != 0 ? "punch" : "zero range", 0);
  }

 private:
  Script& script_;
};

class OsFileTest : public testing::Test {
 protected:
  void Open(int64_t size, int flags = 0) {
    UniqueFd fd(open(dir_.File("f").c_str(), O_RDWR | O_CREAT | O_CLOEXEC | flags, 0600));
    if (!fd.valid() && errno == EINVAL) GTEST_SKIP() << "no O_DIRECT here";
    ASSERT_TRUE(fd.valid());
    ASSERT_EQ(ftruncate(fd.get(), size), 0);
    // What is not in the page cache goes through the calls.
    ASSERT_EQ(posix_fadvise(fd.get(), 0, 0, POSIX_FADV_DONTNEED), 0);
    auto file = NewOsFile(std::move(fd), std::make_unique<ScriptedCalls>(script_), workers_);
    ASSERT_TRUE(file.ok()) << file.status();
    file_ = std::move(file).value();
  }
  absl::Status WriteDurably(ByteOffset offset, Bytes src) {
    return test::Finish(reactor_, file_->Write(offset, src, true));
  }
  absl::Status Sync() { return test::Finish(reactor_, file_->Sync()); }
  absl::Status Zero(ZeroMode mode) {
    return test::Finish(reactor_, file_->Zero(Range(0, 100), mode));
  }

  test::TempDir dir_;
  runtime::Reactor reactor_{{}};
  runtime::WorkerPool pool_{"worker", 1};
  runtime::Workers workers_{pool_, reactor_};
  Script script_;
  std::unique_ptr<File> file_;
};

using Calls = std::vector<std::string>;

TEST_F(OsFileTest, ShortWritesAreContinuedAndInterruptedOnesRepeated) {
  Open(0);
  const std::vector<std::byte> data(1000);
  script_.results = {-EINTR, 300, -EINTR, 1};
  ASSERT_TRUE(WriteDurably(ByteOffset{50}, data).ok());
  EXPECT_EQ(script_.calls,
            (Calls{"durable write 50+1000", "durable write 50+1000", "durable write 350+700",
                   "durable write 350+700", "durable write 351+699"}));
  EXPECT_EQ(file_->size().value, 1050u);
}

TEST_F(OsFileTest, AWriteThatFailsHalfWayHasGrownTheFileThatFar) {
  Open(0);
  const std::vector<std::byte> data(1000);
  script_.results = {300, -ENOSPC};
  EXPECT_EQ(WriteDurably(ByteOffset{0}, data).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(file_->size().value, 300u);
  EXPECT_TRUE(Sync().ok()) << "nothing that was acknowledged is lost";
}

TEST_F(OsFileTest, LargeWritesDoNotHoldTheShard) {
  Open(0);
  const std::vector<std::byte> data(kMiB + 1);
  ASSERT_TRUE(test::Finish(reactor_, file_->Write(ByteOffset{0}, data, false)).ok());
  EXPECT_EQ(script_.calls, (Calls{"write 0+1048577"}));
}

TEST_F(OsFileTest, ShortReadsOfDirectFilesAreContinued) {
  Open(16384, O_DIRECT);
  if (file_ == nullptr) return;
  std::vector<std::byte> memory(16384 + 4096);
  auto* aligned = reinterpret_cast<std::byte*>((reinterpret_cast<uintptr_t>(memory.data()) + 4095) &
                                               ~uintptr_t{4095});
  const MutableBytes in(aligned, 16384);
  script_.results = {-EINTR, 4096};
  ASSERT_TRUE(test::Finish(reactor_, file_->Read(ByteOffset{0}, in)).ok());
  EXPECT_EQ(script_.calls, (Calls{"read 0+16384", "read 0+16384", "read 4096+12288"}));
}

TEST_F(OsFileTest, AfterAFailedSyncNothingIsEverCalledDurableAgain) {
  Open(0);
  script_.results = {-EIO};
  EXPECT_EQ(Sync().code(), absl::StatusCode::kDataLoss);
  const absl::Status again = Sync();
  EXPECT_EQ(again.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(std::string(again.message()),
            "writes may have been lost by an earlier error (fdatasync: Input/output error)");
  EXPECT_EQ(script_.calls.size(), 1u) << "the kernel would say that all is well";
}

TEST_F(OsFileTest, AFailedDurableWriteMayHaveTakenTheErrorOfOthers) {
  Open(0);
  const std::vector<std::byte> data(10);
  script_.results = {-EIO};
  EXPECT_EQ(WriteDurably(ByteOffset{0}, data).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(Sync().code(), absl::StatusCode::kDataLoss);
}

TEST_F(OsFileTest, WhatTheFileSystemCannotIsAskedOnce) {
  Open(1000);
  script_.results = {-EOPNOTSUPP};
  EXPECT_EQ(Zero(ZeroMode::kPunch).code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(Zero(ZeroMode::kPunch).code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(script_.calls, (Calls{"punch"}));
  EXPECT_TRUE(Zero(ZeroMode::kKeepAllocated).ok()) << "one says nothing of the other";
  script_.results = {-EIO};
  EXPECT_EQ(Zero(ZeroMode::kKeepAllocated).code(), absl::StatusCode::kDataLoss);
  EXPECT_TRUE(Zero(ZeroMode::kKeepAllocated).ok()) << "an error is not a lack";
}

TEST_F(OsFileTest, WhatIsNeitherAFileNorADiskIsRefused) {
  UniqueFd null(open("/dev/null", O_RDWR | O_CLOEXEC));
  const auto file = NewOsFile(std::move(null), std::make_unique<ScriptedCalls>(script_), workers_);
  EXPECT_EQ(file.status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(OsFileTest, NonBlockingDescriptorsAreMadeToWait) {
  Open(1000, O_NONBLOCK);
  UniqueFd fd(open(dir_.File("f").c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC));
  const int number = fd.get();
  const auto file = NewOsFile(std::move(fd), std::make_unique<ScriptedCalls>(script_), workers_);
  ASSERT_TRUE(file.ok());
  EXPECT_EQ(fcntl(number, F_GETFL) & O_NONBLOCK, 0);
}

}  // namespace
}  // namespace gabion::io
