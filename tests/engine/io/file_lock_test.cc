#include "engine/io/file_lock.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <memory>
#include <optional>
#include <string>

#include "engine/base/text.h"
#include "engine/io/unique_fd.h"
#include "tests/support_io/temp_dir.h"

namespace gabion::io {
namespace {

// An open of its own, with its locks.
struct Opener {
  explicit Opener(const std::string& path)
      : fd(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)) {
    EXPECT_TRUE(fd.valid());
    EXPECT_EQ(ftruncate(fd.get(), 1048576), 0);
  }
  UniqueFd fd;
  FileLock lock{fd.get()};
};

class FileLockTest : public testing::Test {
 protected:
  test::TempDir dir_;
  const std::string path_ = dir_.File("disk.raw");
};

void ExpectConflict(const absl::Status& status, const char* byte) {
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
  const auto payload = status.GetPayload(AsAbsl(kLockBytePayload));
  ASSERT_TRUE(payload.has_value());
  EXPECT_EQ(std::string(*payload), byte) << status;
}

TEST_F(FileLockTest, ReadersCoexist) {
  Opener a(path_);
  Opener b(path_);
  EXPECT_TRUE(a.lock.Acquire(LockMode::kReader).ok());
  EXPECT_TRUE(b.lock.Acquire(LockMode::kReader).ok());
}

TEST_F(FileLockTest, AWriterExcludesEverybodyElse) {
  Opener a(path_);
  Opener b(path_);
  ASSERT_TRUE(a.lock.Acquire(LockMode::kWriter).ok());
  ExpectConflict(b.lock.Acquire(LockMode::kWriter), "201");
  ExpectConflict(b.lock.Acquire(LockMode::kReader), "101");
  EXPECT_EQ(b.lock.mode(), std::nullopt);
  a.lock.Release();
  EXPECT_TRUE(b.lock.Acquire(LockMode::kWriter).ok());
}

TEST_F(FileLockTest, ARefusedOpenerLeavesNothingBehind) {
  Opener a(path_);
  Opener b(path_);
  ASSERT_TRUE(a.lock.Acquire(LockMode::kReader).ok());
  ExpectConflict(b.lock.Acquire(LockMode::kWriter), "201");
  Opener c(path_);
  EXPECT_TRUE(c.lock.Acquire(LockMode::kReader).ok()) << "b must not hold \"write\"";
}

TEST_F(FileLockTest, ChangesInPlace) {
  Opener a(path_);
  Opener b(path_);
  ASSERT_TRUE(a.lock.Acquire(LockMode::kReader).ok());
  ASSERT_TRUE(a.lock.Acquire(LockMode::kWriter).ok());
  ExpectConflict(b.lock.Acquire(LockMode::kReader), "101");
  ASSERT_TRUE(a.lock.Acquire(LockMode::kReader).ok());
  ASSERT_TRUE(b.lock.Acquire(LockMode::kReader).ok());
  ExpectConflict(a.lock.Acquire(LockMode::kWriter), "201");
  EXPECT_EQ(a.lock.mode(), LockMode::kReader) << "a refused upgrade keeps what was held";
  EXPECT_TRUE(Opener(path_).lock.Acquire(LockMode::kReader).ok());
}

TEST_F(FileLockTest, WhatTheDescriptionHoldsCanBeChangedThroughAnotherDescriptor) {
  Opener a(path_);
  ASSERT_TRUE(a.lock.Acquire(LockMode::kWriter).ok());
  const UniqueFd copy(fcntl(a.fd.get(), F_DUPFD_CLOEXEC, 0));
  FileLock same(copy.get(), LockMode::kWriter);
  ASSERT_TRUE(same.Acquire(LockMode::kReader).ok());
  EXPECT_TRUE(Opener(path_).lock.Acquire(LockMode::kReader).ok());
}

TEST_F(FileLockTest, ClosingTheDescriptorLetsGo) {
  { EXPECT_TRUE(Opener(path_).lock.Acquire(LockMode::kWriter).ok()); }
  EXPECT_TRUE(Opener(path_).lock.Acquire(LockMode::kWriter).ok());
}

TEST_F(FileLockTest, AnotherDescriptorOfTheSameFileThatIsClosedDoesNotLetGo) {
  Opener a(path_);
  ASSERT_TRUE(a.lock.Acquire(LockMode::kWriter).ok());
  close(open(path_.c_str(), O_RDONLY | O_CLOEXEC));
  ExpectConflict(Opener(path_).lock.Acquire(LockMode::kWriter), "201");
}

bool HaveQemuIo() { return std::system("command -v qemu-io >/dev/null 2>&1") == 0; }

struct Output {
  int exit_status;
  std::string text;
};

Output RunCommand(const std::string& command) {
  FILE* pipe = popen((command + " 2>&1").c_str(), "r");
  Output output;
  char buffer[512];
  std::size_t got;
  while ((got = fread(buffer, 1, sizeof(buffer), pipe)) > 0) output.text.append(buffer, got);
  output.exit_status = pclose(pipe);
  return output;
}

TEST_F(FileLockTest, QemuRefusesToWriteWhatAWriterHolds) {
  if (!HaveQemuIo()) GTEST_SKIP() << "qemu-io is not installed";
  Opener a(path_);
  ASSERT_TRUE(a.lock.Acquire(LockMode::kWriter).ok());
  const std::string write = "qemu-io -f raw -c 'w 0 512' " + path_;
  const Output refused = RunCommand(write);
  EXPECT_NE(refused.exit_status, 0);
  EXPECT_NE(refused.text.find("Failed to get"), std::string::npos) << refused.text;
  a.lock.Release();
  const Output done = RunCommand(write);
  EXPECT_EQ(done.exit_status, 0) << done.text;
}

TEST_F(FileLockTest, QemuRefusesToWriteWhatAReaderHoldsButReads) {
  if (!HaveQemuIo()) GTEST_SKIP() << "qemu-io is not installed";
  Opener a(path_);
  ASSERT_TRUE(a.lock.Acquire(LockMode::kReader).ok());
  const Output refused = RunCommand("qemu-io -f raw -c 'w 0 512' " + path_);
  EXPECT_NE(refused.text.find("Failed to get"), std::string::npos) << refused.text;
  const Output read = RunCommand("qemu-io -r -f raw -c 'r 0 512' " + path_);
  EXPECT_EQ(read.exit_status, 0) << read.text;
}

// qemu-io with the image open, until it is destroyed.
class QemuIo {
 public:
  QemuIo(const std::string& arguments, const std::string& path) {
    int to[2];
    int from[2];
    EXPECT_EQ(pipe2(to, O_CLOEXEC), 0);
    EXPECT_EQ(pipe2(from, O_CLOEXEC), 0);
    child_ = fork();
    if (child_ == 0) {
      dup2(to[0], 0);
      dup2(from[1], 1);
      const std::string command = "exec qemu-io " + arguments + " -f raw " + path;
      execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
      _exit(127);
    }
    close(to[0]);
    close(from[1]);
    in_ = UniqueFd(to[1]);
    out_ = UniqueFd(from[0]);
    // Its answer says that the image is open.
    const std::string ask = "length\n";
    EXPECT_EQ(write(in_.get(), ask.data(), ask.size()), static_cast<ssize_t>(ask.size()));
    std::string answer;
    char c;
    while (answer.find("MiB") == std::string::npos && read(out_.get(), &c, 1) == 1) answer += c;
    EXPECT_NE(answer.find("1 MiB"), std::string::npos) << answer;
  }
  ~QemuIo() {
    in_ = UniqueFd();
    waitpid(child_, nullptr, 0);
  }

 private:
  pid_t child_;
  UniqueFd in_;
  UniqueFd out_;
};

TEST_F(FileLockTest, AWriterIsRefusedWhatQemuWrites) {
  if (!HaveQemuIo()) GTEST_SKIP() << "qemu-io is not installed";
  Opener a(path_);
  {
    QemuIo qemu("", path_);
    EXPECT_EQ(a.lock.Acquire(LockMode::kWriter).code(), absl::StatusCode::kFailedPrecondition);
    ExpectConflict(a.lock.Acquire(LockMode::kReader), "101");
  }
  EXPECT_TRUE(a.lock.Acquire(LockMode::kWriter).ok());
}

TEST_F(FileLockTest, AReaderReadsWhatQemuReads) {
  if (!HaveQemuIo()) GTEST_SKIP() << "qemu-io is not installed";
  Opener a(path_);
  QemuIo qemu("-r", path_);
  EXPECT_TRUE(a.lock.Acquire(LockMode::kReader).ok());
}

}  // namespace
}  // namespace gabion::io
