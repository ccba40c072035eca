#include "engine/io/asio_listener.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <filesystem>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "engine/base/bytes.h"
#include "engine/io/asio_stream.h"
#include "engine/runtime/shard.h"
#include "tests/support_io/finish.h"
#include "tests/support_io/temp_dir.h"

namespace gabion::io {
namespace {

using test::Finish;

class Collector final : public Listener::Handler {
 public:
  void OnConnection(UniqueFd socket) override { sockets.push_back(std::move(socket)); }
  std::vector<UniqueFd> sockets;
};

class CountingLogger final : public Logger {
 public:
  void Log(LogLevel level, std::string_view, std::string_view message) override {
    if (level == LogLevel::kWarning) warnings.emplace_back(message);
  }
  std::vector<std::string> warnings;
};

// -1 if nobody answers.
UniqueFd Connect(const std::string& path) {
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  if (connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) return {};
  return fd;
}

class ListenerTest : public testing::Test {
 protected:
  std::unique_ptr<Listener> Listen() {
    auto socket = ListenSocket::Unix(path_, 0600);
    EXPECT_TRUE(socket.ok()) << socket.status();
    return NewAsioListener(reactor_, std::move(socket).value(), handler_, logger_);
  }
  void RunUntilConnections(std::size_t count) {
    while (handler_.sockets.size() < count) reactor_.RunTurn(true);
  }

  test::TempDir dir_;
  const std::string path_ = dir_.File("nbd.sock");
  runtime::Reactor reactor_{{}};
  Collector handler_;
  CountingLogger logger_;
};

TEST_F(ListenerTest, HandsOverConnections) {
  const std::unique_ptr<Listener> listener = Listen();
  EXPECT_EQ(listener->address(), "unix:" + path_);
  std::vector<UniqueFd> clients;
  for (int i = 0; i < 100; ++i) clients.push_back(Connect(path_));
  RunUntilConnections(100);
  clients.push_back(Connect(path_));
  RunUntilConnections(101);
  Finish(reactor_, listener->Stop());
  EXPECT_TRUE(handler_.sockets.size() == 101);
}

TEST_F(ListenerTest, AfterStopNobodyGetsInAndTheNameIsGone) {
  const std::unique_ptr<Listener> listener = Listen();
  reactor_.RunTurn(false);
  Finish(reactor_, listener->Stop());
  EXPECT_FALSE(Connect(path_).valid());
  EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(ListenerTest, TheSocketHasTheModeThatWasAskedFor) {
  const mode_t before = umask(077);
  const auto open_to_group = ListenSocket::Unix(path_, 0660);
  umask(before);
  ASSERT_TRUE(open_to_group.ok());
  struct stat details;
  ASSERT_EQ(stat(path_.c_str(), &details), 0);
  EXPECT_EQ(details.st_mode & 0777, 0660u);
}

TEST_F(ListenerTest, ALivingServerIsNotReplaced) {
  const std::unique_ptr<Listener> listener = Listen();
  const auto second = ListenSocket::Unix(path_, 0600);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(std::string(second.status().message()), "another server is listening on " + path_);
  EXPECT_TRUE(Connect(path_).valid());
  Finish(reactor_, listener->Stop());
}

// Binds as a server does that knows nothing of our lock.
UniqueFd ForeignServer(const std::string& path) {
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  EXPECT_EQ(bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  EXPECT_EQ(listen(fd.get(), 1), 0);
  return fd;
}

TEST_F(ListenerTest, ADeadServersSocketIsReplacedAndAForeignLivingOneIsNot) {
  {
    const UniqueFd foreign = ForeignServer(path_);
    EXPECT_EQ(ListenSocket::Unix(path_, 0600).status().code(), absl::StatusCode::kAlreadyExists);
    EXPECT_TRUE(Connect(path_).valid());
  }
  EXPECT_TRUE(std::filesystem::exists(path_));
  EXPECT_TRUE(ListenSocket::Unix(path_, 0600).ok());
}

TEST_F(ListenerTest, WhatIsNoSocketIsLeftAlone) {
  close(open(path_.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
  EXPECT_EQ(ListenSocket::Unix(path_, 0600).status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_TRUE(std::filesystem::is_regular_file(path_));
}

TEST_F(ListenerTest, APathThatIsTooLongForASocketIsRefused) {
  const std::string path = dir_.File(std::string(120, 's'));
  EXPECT_EQ(ListenSocket::Unix(path, 0600).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(ListenerTest, OnTcpTheKernelChoosesPortZero) {
  auto socket = ListenSocket::Tcp("127.0.0.1", 0);
  ASSERT_TRUE(socket.ok()) << socket.status();
  EXPECT_EQ(socket->address().rfind("127.0.0.1:", 0), 0u);
  EXPECT_NE(socket->address(), "127.0.0.1:0");
  const auto port = static_cast<uint16_t>(std::stoi(socket->address().substr(10)));
  EXPECT_FALSE(ListenSocket::Tcp("127.0.0.1", port).ok()) << "the port is taken";
  EXPECT_EQ(ListenSocket::Tcp("no.such.host.invalid", 0).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(ListenerTest, OutOfDescriptorsItWaitsAndGoesOn) {
  const std::unique_ptr<Listener> listener = Listen();
  reactor_.RunTurn(false);
  const UniqueFd first = Connect(path_);
  const UniqueFd second = Connect(path_);
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit none{0, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  while (logger_.warnings.empty()) reactor_.RunTurn(true);
  EXPECT_TRUE(handler_.sockets.empty());
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  RunUntilConnections(2);
  EXPECT_EQ(logger_.warnings.size(), 1u);
  EXPECT_NE(logger_.warnings[0].find("Too many open files"), std::string::npos);
  Finish(reactor_, listener->Stop());
}

// A connection that was accepted on one shard lives on another.
class Mover final : public Listener::Handler {
 public:
  explicit Mover(runtime::Shard& target) : target_(target) {}
  void OnConnection(UniqueFd socket) override {
    target_.Post([this, fd = socket.Release()] {
      stream = NewAsioStream(target_.reactor(), UniqueFd(fd));
      greeting = Greet();
    });
  }
  Task<void> Greet() {
    static constexpr std::string_view kHello = "hello";
    const Bytes piece = AsBytes(kHello);
    const absl::Status status = co_await stream->WriteAll({&piece, 1});
    EXPECT_TRUE(status.ok());
  }

  runtime::Shard& target_;
  std::unique_ptr<Stream> stream;
  Task<void> greeting;
};

TEST_F(ListenerTest, ConnectionsCanMoveToAnotherShard) {
  runtime::Shard shard("other", {});
  Mover mover(shard);
  auto socket = ListenSocket::Unix(path_, 0600);
  ASSERT_TRUE(socket.ok());
  const auto listener = NewAsioListener(reactor_, std::move(socket).value(), mover, logger_);
  const UniqueFd client = Connect(path_);
  for (int turn = 0; turn < 5; ++turn) reactor_.RunTurn(false);
  char text[6] = "";
  EXPECT_EQ(recv(client.get(), text, 5, MSG_WAITALL), 5);
  EXPECT_STREQ(text, "hello");
  shard.Post([&mover] {
    mover.greeting = Task<void>();
    mover.stream.reset();
  });
  shard.Stop();
  Finish(reactor_, listener->Stop());
}

}  // namespace
}  // namespace gabion::io
