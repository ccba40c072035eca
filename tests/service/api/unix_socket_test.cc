#include "service/unix_socket.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "tests/service/temp_dir.h"

namespace gabion::service {
namespace {

// A socket bound to `path`; whether it listens is up to the test.
int BoundSocket(const std::string& path) {
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
  EXPECT_EQ(bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  return fd;
}

TEST(UnixSocketTest, NothingThereIsFine) {
  const TempDir dir;
  EXPECT_TRUE(PrepareUnixSocket(dir / "s").ok());
}

TEST(UnixSocketTest, SocketOfADeadProcessIsRemoved) {
  const TempDir dir;
  close(BoundSocket(dir / "s"));
  EXPECT_TRUE(PrepareUnixSocket(dir / "s").ok());
  EXPECT_FALSE(std::filesystem::exists(dir / "s"));
}

TEST(UnixSocketTest, SocketThatSomebodyListensOnStays) {
  const TempDir dir;
  const int fd = BoundSocket(dir / "s");
  ASSERT_EQ(listen(fd, 1), 0);
  const absl::Status status = PrepareUnixSocket(dir / "s");
  EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_NE(status.message().find(dir / "s"), std::string::npos) << status;
  EXPECT_TRUE(std::filesystem::exists(dir / "s"));
  close(fd);
}

TEST(UnixSocketTest, WhatIsNoSocketStays) {
  const TempDir dir;
  std::ofstream(dir / "s") << "a file";
  EXPECT_EQ(PrepareUnixSocket(dir / "s").code(), absl::StatusCode::kAlreadyExists);
  EXPECT_TRUE(std::filesystem::exists(dir / "s"));
}

TEST(UnixSocketTest, PathThatDoesNotFitIsRefusedWithItsLength) {
  const absl::Status status = PrepareUnixSocket("/" + std::string(200, 'x'));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("201 bytes"), absl::string_view::npos) << status;
}

TEST(UnixSocketTest, DirectoryThatCannotBeSearchedIsAnError) {
  EXPECT_FALSE(PrepareUnixSocket("/dev/null/s").ok());
}

}  // namespace
}  // namespace gabion::service
