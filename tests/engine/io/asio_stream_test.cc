#include "engine/io/asio_stream.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <numeric>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/bytes.h"
#include "engine/io/listen_socket.h"
#include "tests/support_io/finish.h"

namespace gabion::io {
namespace {

using test::Finish;

class AsioStreamTest : public testing::Test {
 protected:
  AsioStreamTest() {
    int pair[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    stream_ = NewAsioStream(reactor_, UniqueFd(pair[0]));
    other_ = UniqueFd(pair[1]);
  }

  absl::StatusOr<std::string> Read(std::size_t size) {
    std::vector<std::byte> buffer(size);
    const absl::StatusOr<std::size_t> got = Finish(reactor_, stream_->ReadSome(buffer));
    if (!got.ok()) return got.status();
    return std::string(AsText(Bytes(buffer.data(), *got)));
  }

  runtime::Reactor reactor_{{}};
  std::unique_ptr<Stream> stream_;
  UniqueFd other_;
};

TEST_F(AsioStreamTest, WhatIsThereIsReadAtOnce) {
  ASSERT_EQ(write(other_.get(), "hello", 5), 5);
  std::vector<std::byte> buffer(16);
  Task<absl::StatusOr<std::size_t>> task = stream_->ReadSome(buffer);
  ASSERT_TRUE(task.done()) << "no turn of the loop is needed";
  EXPECT_EQ(*task.Take(), 5u);
  EXPECT_EQ(AsText(Bytes(buffer).first(5)), "hello");
}

TEST_F(AsioStreamTest, AReadWaitsForBytes) {
  std::vector<std::byte> buffer(16);
  Task<absl::StatusOr<std::size_t>> task = stream_->ReadSome(buffer);
  for (int turn = 0; turn < 10; ++turn) reactor_.RunTurn(false);
  EXPECT_FALSE(task.done());
  ASSERT_EQ(write(other_.get(), "later", 5), 5);
  EXPECT_EQ(*Finish(reactor_, std::move(task)), 5u);
}

TEST_F(AsioStreamTest, ManyWaitsInARowEachGetTheirBytes) {
  for (int i = 0; i < 100; ++i) {
    std::vector<std::byte> buffer(16);
    Task<absl::StatusOr<std::size_t>> task = stream_->ReadSome(buffer);
    ASSERT_FALSE(task.done());
    ASSERT_EQ(write(other_.get(), "x", 1), 1);
    ASSERT_EQ(*Finish(reactor_, std::move(task)), 1u);
  }
}

TEST_F(AsioStreamTest, TheEndIsZeroBytes) {
  ASSERT_EQ(write(other_.get(), "bye", 3), 3);
  other_ = UniqueFd();
  EXPECT_EQ(*Read(16), "bye");
  EXPECT_EQ(*Read(16), "");
  EXPECT_EQ(*Read(16), "");
}

TEST_F(AsioStreamTest, WritingToAClosedPeerIsAnErrorAndNoSignal) {
  other_ = UniqueFd();
  const Bytes piece = AsBytes("hello");
  const absl::Status status = Finish(reactor_, stream_->WriteAll({&piece, 1}));
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
}

TEST_F(AsioStreamTest, PiecesArriveInOrderHoweverSlowlyTheyAreTaken) {
  // More pieces than one call takes, some empty, more bytes than the socket holds.
  constexpr std::size_t kPieces = 3 * IOV_MAX + 7;
  std::vector<std::vector<std::byte>> data(kPieces);
  std::vector<Bytes> pieces;
  std::vector<std::byte> expected;
  for (std::size_t i = 0; i < kPieces; ++i) {
    data[i].resize(i % 701);
    for (std::size_t k = 0; k < data[i].size(); ++k) data[i][k] = std::byte((i * 31 + k) % 253);
    pieces.emplace_back(data[i]);
    expected.insert(expected.end(), data[i].begin(), data[i].end());
  }
  Task<absl::Status> writing = stream_->WriteAll(pieces);
  EXPECT_FALSE(writing.done()) << "the socket must fill up for this test to mean anything";
  std::vector<std::byte> got;
  std::vector<std::byte> buffer(10007);
  while (got.size() < expected.size()) {
    const ssize_t n = recv(other_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (n > 0) got.insert(got.end(), buffer.begin(), buffer.begin() + n);
    reactor_.RunTurn(false);
  }
  EXPECT_TRUE(Finish(reactor_, std::move(writing)).ok());
  EXPECT_EQ(got, expected);
}

TEST_F(AsioStreamTest, ReadsAndWritesWaitSideBySide) {
  std::vector<std::byte> big(8 * kMiB, std::byte{7});
  const Bytes piece = big;
  Task<absl::Status> writing = stream_->WriteAll({&piece, 1});
  std::vector<std::byte> buffer(16);
  Task<absl::StatusOr<std::size_t>> reading = stream_->ReadSome(buffer);
  ASSERT_FALSE(writing.done());
  ASSERT_EQ(write(other_.get(), "ping", 4), 4);
  EXPECT_EQ(*Finish(reactor_, std::move(reading)), 4u) << "a full socket must not stop reading";
  std::vector<std::byte> sink(kMiB);
  std::size_t got = 0;
  while (got < big.size()) {
    const ssize_t n = recv(other_.get(), sink.data(), sink.size(), MSG_DONTWAIT);
    if (n > 0) got += static_cast<std::size_t>(n);
    reactor_.RunTurn(false);
  }
  EXPECT_TRUE(Finish(reactor_, std::move(writing)).ok());
}

TEST_F(AsioStreamTest, AfterShutdownReadOnlyWhatHasArrivedIsRead) {
  ASSERT_EQ(write(other_.get(), "arrived", 7), 7);
  stream_->ShutdownRead();
  stream_->ShutdownRead();
  EXPECT_EQ(*Read(3), "arr");
  EXPECT_EQ(*Read(16), "ived");
  EXPECT_EQ(*Read(16), "");
  const Bytes piece = AsBytes("reply");
  EXPECT_TRUE(Finish(reactor_, stream_->WriteAll({&piece, 1})).ok());
  char text[6] = "";
  EXPECT_EQ(read(other_.get(), text, 5), 5);
  EXPECT_STREQ(text, "reply");
}

TEST_F(AsioStreamTest, ShutdownReadEndsAReadThatWaits) {
  std::vector<std::byte> buffer(16);
  Task<absl::StatusOr<std::size_t>> reading = stream_->ReadSome(buffer);
  ASSERT_FALSE(reading.done());
  stream_->ShutdownRead();
  EXPECT_EQ(*Finish(reactor_, std::move(reading)), 0u);
}

TEST_F(AsioStreamTest, ShutdownEndsWhatWaits) {
  std::vector<std::byte> big(8 * kMiB, std::byte{7});
  const Bytes piece = big;
  Task<absl::Status> writing = stream_->WriteAll({&piece, 1});
  std::vector<std::byte> buffer(16);
  Task<absl::StatusOr<std::size_t>> reading = stream_->ReadSome(buffer);
  ASSERT_FALSE(writing.done());
  ASSERT_FALSE(reading.done());
  stream_->Shutdown();
  stream_->Shutdown();
  const absl::StatusOr<std::size_t> got = Finish(reactor_, std::move(reading));
  EXPECT_TRUE(!got.ok() || *got == 0);
  EXPECT_FALSE(Finish(reactor_, std::move(writing)).ok());
}

TEST_F(AsioStreamTest, AUnixPeerIsKnownByItsCredentials) {
  EXPECT_EQ(stream_->peer(), absl::StrCat("unix:uid=", getuid(), ",pid=", getpid()));
}

// A stream and its peer over TCP.
class AsioTcpStreamTest : public testing::Test {
 protected:
  AsioTcpStreamTest() {
    const auto listening = ListenSocket::Tcp("127.0.0.1", 0);
    EXPECT_TRUE(listening.ok()) << listening.status();
    sockaddr_in address;
    socklen_t size = sizeof(address);
    auto* generic = reinterpret_cast<sockaddr*>(&address);
    EXPECT_EQ(getsockname(listening->fd(), generic, &size), 0);
    client_ = UniqueFd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    EXPECT_EQ(connect(client_.get(), generic, size), 0);
    accepted_ = accept4(listening->fd(), nullptr, nullptr, SOCK_CLOEXEC);
    EXPECT_GE(accepted_, 0);
    stream_ = NewAsioStream(reactor_, UniqueFd(accepted_));
  }

  runtime::Reactor reactor_{{}};
  UniqueFd client_;
  int accepted_ = -1;  // the stream's
  std::unique_ptr<Stream> stream_;
};

TEST_F(AsioTcpStreamTest, SmallPiecesAreNotHeldBackAndThePeerHasAnAddress) {
  int no_delay = 0;
  socklen_t size = sizeof(no_delay);
  ASSERT_EQ(getsockopt(accepted_, IPPROTO_TCP, TCP_NODELAY, &no_delay, &size), 0);
  EXPECT_EQ(no_delay, 1);
  sockaddr_in address;
  size = sizeof(address);
  ASSERT_EQ(getsockname(client_.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
  EXPECT_EQ(stream_->peer(), absl::StrCat("127.0.0.1:", ntohs(address.sin_port)));
}

TEST_F(AsioTcpStreamTest, WhatArrivesAfterShutdownReadIsNotRead) {
  std::vector<std::byte> buffer(16);
  Task<absl::StatusOr<std::size_t>> reading = stream_->ReadSome(buffer);
  ASSERT_FALSE(reading.done());
  stream_->ShutdownRead();
  ASSERT_EQ(write(client_.get(), "late", 4), 4);
  EXPECT_EQ(*Finish(reactor_, std::move(reading)), 0u);
  EXPECT_EQ(*Finish(reactor_, stream_->ReadSome(buffer)), 0u);
}

}  // namespace
}  // namespace gabion::io
