#include "engine/io/ring.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <string>
#include <vector>

#include "engine/io/unique_fd.h"
#include "tests/support_io/finish.h"
#include "tests/support_io/temp_dir.h"

namespace gabion::io {
namespace {

using test::Finish;

class RingTest : public testing::Test {
 protected:
  void SetUp() override {
    auto ring = Ring::Create(reactor_, {.entries = 4});
    if (!ring.ok()) GTEST_SKIP() << "this host refuses io_uring: " << ring.status();
    ring_ = std::move(ring).value();
    file_ = UniqueFd(open(dir_.File("f").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    ASSERT_TRUE(file_.valid());
  }
  void TearDown() override {
    if (ring_ != nullptr) Finish(reactor_, ring_->Close());
  }

  // In one coroutine each, as all operations are.
  Task<int> Read(int fd, MutableBytes dst, uint64_t offset) {
    const int result = co_await ring_->Read(fd, dst, ByteOffset{offset});
    co_return result;
  }
  Task<int> Write(Bytes src, uint64_t offset) {
    const int result = co_await ring_->Write(file_.get(), src, ByteOffset{offset}, false);
    co_return result;
  }

  test::TempDir dir_;
  runtime::Reactor reactor_{{}};
  std::unique_ptr<Ring> ring_;
  UniqueFd file_;
};

TEST_F(RingTest, NothingIsSubmittedBeforeTheEndOfTheTurn) {
  const std::vector<std::byte> data(16, std::byte{1});
  Task<int> a = Write(data, 0);
  Task<int> b = Write(data, 16);
  EXPECT_EQ(ring_->in_flight(), 2u);
  EXPECT_EQ(lseek(file_.get(), 0, SEEK_END), 0);
  EXPECT_EQ(Finish(reactor_, std::move(a)), 16);
  EXPECT_EQ(Finish(reactor_, std::move(b)), 16);
  EXPECT_EQ(lseek(file_.get(), 0, SEEK_END), 32);
}

TEST_F(RingTest, WhatDoesNotFitWaitsForItsTurn) {
  constexpr std::size_t kCount = 1000;  // the ring has 4 entries
  std::vector<std::vector<std::byte>> data;
  std::vector<Task<int>> tasks;
  for (std::size_t i = 0; i < kCount; ++i) data.emplace_back(16, std::byte(i % 256));
  for (std::size_t i = 0; i < kCount; ++i) tasks.push_back(Write(data[i], i * 16));
  EXPECT_EQ(ring_->in_flight(), kCount);
  for (auto& task : tasks) EXPECT_EQ(Finish(reactor_, std::move(task)), 16);
  EXPECT_EQ(ring_->in_flight(), 0u);
  std::vector<std::byte> in(kCount * 16);
  EXPECT_EQ(Finish(reactor_, Read(file_.get(), in, 0)), static_cast<int>(in.size()));
  for (std::size_t i = 0; i < in.size(); ++i) ASSERT_EQ(in[i], data[i / 16][0]);
}

TEST_F(RingTest, CloseWaitsForWhatIsInFlight) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  const UniqueFd reader(ends[0]);
  const UniqueFd writer(ends[1]);
  std::vector<std::byte> in(8);
  Task<int> reading = Read(reader.get(), in, 0);
  Task<void> closing = ring_->Close();
  for (int turn = 0; turn < 20; ++turn) reactor_.RunTurn(false);
  EXPECT_FALSE(closing.done());
  EXPECT_FALSE(reading.done());
  ASSERT_EQ(write(writer.get(), "x", 1), 1);
  Finish(reactor_, std::move(closing));
  EXPECT_EQ(Finish(reactor_, std::move(reading)), 1);
}

TEST_F(RingTest, ASleepingLoopIsWokenByACompletion) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  const UniqueFd reader(ends[0]);
  UniqueFd writer(ends[1]);
  std::vector<std::byte> in(8);
  Task<int> reading = Read(reader.get(), in, 0);
  // The other end speaks when this process sleeps in the kernel, from a process of its own.
  const pid_t child = fork();
  if (child == 0) {
    usleep(20000);
    _exit(write(writer.get(), "y", 1) == 1 ? 0 : 1);
  }
  EXPECT_EQ(Finish(reactor_, std::move(reading)), 1);
  EXPECT_EQ(in[0], std::byte{'y'});
  EXPECT_EQ(waitpid(child, nullptr, 0), child);
}

TEST_F(RingTest, ErrorsAreNegativeErrno) {
  std::vector<std::byte> in(8);
  EXPECT_EQ(Finish(reactor_, Read(-1, in, 0)), -EBADF);
}

TEST(RingCreateTest, AHostThatRefusesSaysSo) {
  runtime::Reactor reactor({});
  const auto ring = Ring::Create(reactor, {.entries = 0});
  EXPECT_FALSE(ring.ok());
  EXPECT_EQ(std::string(ring.status().message()), "io_uring_setup: Invalid argument");
}

}  // namespace
}  // namespace gabion::io
