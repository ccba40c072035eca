// The daemon as a program: how it starts, ends, and refuses to start.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "gabion/v1/export.grpc.pb.h"
#include "gabion/v1/image.grpc.pb.h"
#include "gabion/v1/inspect.grpc.pb.h"
#include "grpcpp/client_context.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "tests/service/api/wire.h"
#include "tests/service/temp_dir.h"

extern char** environ;

namespace gabion::service {
namespace {

using testing::HasSubstr;

// A running gabiond; its standard error is read through a pipe. Killed at the end.
class Daemon {
 public:
  explicit Daemon(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), GABIOND);
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    int ends[2];
    EXPECT_EQ(pipe2(ends, O_CLOEXEC), 0);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
    posix_spawn_file_actions_adddup2(&actions, ends[1], 2);
    EXPECT_EQ(posix_spawn(&pid_, GABIOND, &actions, nullptr, argv.data(), environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    output_ = fdopen(ends[0], "r");
  }
  ~Daemon() {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      Wait();
    }
    fclose(output_);
  }
  Daemon(const Daemon&) = delete;
  Daemon& operator=(const Daemon&) = delete;

  // The next line of output that contains `text`; empty if it ends without one.
  std::string AwaitLine(const std::string& text) {
    char line[8192];
    while (fgets(line, sizeof(line), output_) != nullptr) {
      if (std::string(line).find(text) != std::string::npos) return line;
    }
    return "";
  }
  std::string Rest() {
    std::string rest;
    char line[8192];
    while (fgets(line, sizeof(line), output_) != nullptr) rest += line;
    return rest;
  }
  void Signal(int signal) { kill(pid_, signal); }
  // The exit status, or minus the signal that ended it.
  int Wait() {
    int status = 0;
    waitpid(pid_, &status, 0);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

 private:
  pid_t pid_ = -1;
  FILE* output_ = nullptr;
};

class GabiondTest : public testing::Test {
 protected:
  std::shared_ptr<grpc::Channel> Channel() {
    return grpc::CreateChannel("unix:" + (dir_ / "d/gabiond.sock"),
                               grpc::InsecureChannelCredentials());
  }
  grpc::Status CreateImageAndExport() {
    v1::CreateImageRequest image;
    image.set_image_id("a");
    image.mutable_image()->mutable_raw();
    image.mutable_image()->set_virtual_size_bytes(1'000'300);
    google::longrunning::Operation operation;
    grpc::ClientContext first;
    grpc::Status status =
        v1::ImageService::NewStub(Channel())->CreateImage(&first, image, &operation);
    if (!status.ok()) return status;
    v1::CreateExportRequest exported;
    exported.set_export_id("e");
    exported.mutable_export_()->set_source("images/a");
    exported.mutable_export_()->mutable_block_sizes()->set_minimum_bytes(4096);
    v1::Export response;
    grpc::ClientContext second;
    return v1::ExportService::NewStub(Channel())->CreateExport(&second, exported, &response);
  }
  v1::Export GetExport() {
    v1::GetExportRequest request;
    request.set_name("exports/e");
    v1::Export exported;
    grpc::ClientContext context;
    const grpc::Status status =
        v1::ExportService::NewStub(Channel())->GetExport(&context, request, &exported);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return exported;
  }

  const TempDir dir_;
  const std::vector<std::string> arguments_ = {"--data-dir", dir_ / "d"};
};

TEST_F(GabiondTest, ServesFromAFreshDirectoryAndEndsOnSigterm) {
  Daemon daemon(arguments_);
  const std::string line = daemon.AwaitLine("\"listening\"");
  EXPECT_THAT(line, HasSubstr("unix:" + (dir_ / "d/gabiond.sock")));
  EXPECT_THAT(line, HasSubstr("unix:" + (dir_ / "d/nbd.sock")));
  struct stat status;
  ASSERT_EQ(stat((dir_ / "d").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0700u);
  ASSERT_EQ(stat((dir_ / "d/gabiond.sock").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
  EXPECT_TRUE(std::filesystem::is_directory(dir_ / "d/images"));
  daemon.Signal(SIGTERM);
  EXPECT_NE(daemon.AwaitLine("\"stopped\""), "");
  EXPECT_EQ(daemon.Wait(), 0);
  EXPECT_FALSE(std::filesystem::exists(dir_ / "d/gabiond.sock"));
}

// What libprotobuf says of it is a line of the log like any other, and only for who asks for all.
TEST_F(GabiondTest, TextThatIsNotUtf8LeavesTheLogWhatItIs) {
  for (const bool debug : {false, true}) {
    std::vector<std::string> arguments = arguments_;
    if (debug) arguments.push_back("--log-level=debug");
    Daemon daemon(arguments);
    ASSERT_NE(daemon.AwaitLine("\"listening\""), "");
    const std::string name = "\x0a\x02\xff\xfe";  // field 1, two bytes
    const WireAnswer answer =
        CallOnWire(*Channel(), "gabion.v1.ImageService/GetImage", name, /*most=*/10);
    EXPECT_FALSE(answer.status.ok());
    daemon.Signal(SIGTERM);
    std::istringstream rest(daemon.Rest());
    EXPECT_EQ(daemon.Wait(), 0);
    int said = 0;
    for (std::string line; std::getline(rest, line);) {
      EXPECT_TRUE(line.starts_with('{')) << line;
      said += line.find("\"protobuf\"") != std::string::npos ? 1 : 0;
    }
    EXPECT_EQ(said > 0, debug);
  }
}

TEST_F(GabiondTest, WhatWasAcknowledgedIsServedAgainAfterKill) {
  {
    Daemon daemon(arguments_);
    ASSERT_NE(daemon.AwaitLine("\"listening\""), "");
    const grpc::Status created = CreateImageAndExport();
    ASSERT_TRUE(created.ok()) << created.error_message();
    daemon.Signal(SIGKILL);
    EXPECT_EQ(daemon.Wait(), -SIGKILL);
  }
  Daemon daemon(arguments_);
  ASSERT_NE(daemon.AwaitLine("\"listening\""), "");
  const v1::Export exported = GetExport();
  EXPECT_EQ(exported.state(), v1::Export::STATE_ACTIVE);
  EXPECT_EQ(exported.effective_block_sizes().minimum().bytes(), 4096u);
  EXPECT_EQ(exported.effective_block_sizes().export_size_bytes(), 1'003'520u);
}

TEST_F(GabiondTest, WrittenPatternIsReadBackThroughTheExport) {
  Daemon daemon(arguments_);
  ASSERT_NE(daemon.AwaitLine("\"listening\""), "");
  ASSERT_TRUE(CreateImageAndExport().ok());
  auto inspect = v1::InspectService::NewStub(Channel());
  v1::WriteRequest write;
  write.set_name("exports/e");
  write.set_offset(5000);
  write.set_length(300);
  write.set_pattern("gabion");
  v1::WriteResponse written;
  grpc::ClientContext first;
  grpc::Status status = inspect->Write(&first, write, &written);
  ASSERT_TRUE(status.ok()) << status.error_message();
  v1::VerifyRequest verify;
  verify.set_name("images/a");
  verify.set_offset(5000);
  verify.set_length(300);
  verify.set_pattern("gabion");
  v1::VerifyResponse verified;
  grpc::ClientContext second;
  status = inspect->Verify(&second, verify, &verified);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_TRUE(verified.matches());

  v1::MapRequest map;
  map.set_name("exports/e");
  map.set_as_advertised(true);
  grpc::ClientContext third;
  auto stream = inspect->Map(&third, map);
  v1::MapResponse piece;
  uint64_t at = 0;
  while (stream->Read(&piece)) {
    for (const auto& extent : piece.extents()) {
      EXPECT_EQ(extent.offset(), at);
      EXPECT_EQ(extent.length() % 4096, 0u);
      at += extent.length();
    }
  }
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_EQ(at, 1'003'520u);
}

TEST_F(GabiondTest, SecondDaemonOnTheSameDirectoryIsRefused) {
  Daemon first(arguments_);
  ASSERT_NE(first.AwaitLine("\"listening\""), "");
  Daemon second(arguments_);
  EXPECT_THAT(second.Rest(), HasSubstr("\"error\""));
  EXPECT_EQ(second.Wait(), 1);
  EXPECT_TRUE(CreateImageAndExport().ok());  // the first one is unharmed
}

TEST_F(GabiondTest, DataDirectoryThatCannotBeMadeIsNamed) {
  std::ofstream(dir_ / "file") << "no directory";
  Daemon daemon({"--data-dir", dir_ / "file"});
  EXPECT_THAT(daemon.Rest(), HasSubstr(dir_ / "file"));
  EXPECT_EQ(daemon.Wait(), 1);
}

TEST_F(GabiondTest, EveryWrongSettingIsReported) {
  Daemon daemon({"--data-dir", dir_ / "d", "--no-such-flag", "--shards", "many"});
  const std::string output = daemon.Rest();
  EXPECT_THAT(output, HasSubstr("no-such-flag"));
  EXPECT_THAT(output, HasSubstr("shards"));
  EXPECT_EQ(daemon.Wait(), 2);
  EXPECT_FALSE(std::filesystem::exists(dir_ / "d"));
}

TEST_F(GabiondTest, GrpcBeyondLoopbackIsRefusedUnlessItIsNamed) {
  Daemon daemon({"--data-dir", dir_ / "d", "--grpc-listen=0.0.0.0:0"});
  EXPECT_THAT(daemon.Rest(), HasSubstr("insecure-grpc"));
  EXPECT_EQ(daemon.Wait(), 2);
}

TEST_F(GabiondTest, HelpAndVersionSucceed) {
  Daemon help({"--help"});
  EXPECT_THAT(help.Rest(), HasSubstr("--data-dir"));
  EXPECT_EQ(help.Wait(), 0);
  Daemon version({"--version"});
  EXPECT_THAT(version.Rest(), HasSubstr("gabiond "));
  EXPECT_EQ(version.Wait(), 0);
}

// The service manager's end of NOTIFY_SOCKET, which is set as long as this lives.
class Manager {
 public:
  explicit Manager(const std::string& path) : fd_(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof(address.sun_path) - 1);
    EXPECT_EQ(bind(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
    setenv("NOTIFY_SOCKET", path.c_str(), 1);
    setenv("WATCHDOG_USEC", "20000", 1);
  }
  ~Manager() {
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    close(fd_);
  }
  Manager(const Manager&) = delete;
  Manager& operator=(const Manager&) = delete;

  std::string Next() {
    char text[4096];
    const ssize_t length = recv(fd_, text, sizeof(text), 0);
    return std::string(text, length < 0 ? 0 : static_cast<size_t>(length));
  }

 private:
  const int fd_;
};

TEST_F(GabiondTest, TheServiceManagerIsTold) {
  Manager manager(dir_ / "notify");
  Daemon daemon(arguments_);
  EXPECT_EQ(manager.Next(), "READY=1\nSTATUS=Serving.\n");
  EXPECT_TRUE(CreateImageAndExport().ok());  // ready is ready: at the first try
  for (int i = 0; i < 3; ++i) EXPECT_EQ(manager.Next(), "WATCHDOG=1\n");
  daemon.Signal(SIGTERM);
  std::string last;
  while ((last = manager.Next()) == "WATCHDOG=1\n") continue;
  EXPECT_EQ(last, "STOPPING=1\nSTATUS=Draining.\n");
  EXPECT_EQ(daemon.Wait(), 0);
}

TEST_F(GabiondTest, AServiceManagerThatIsNotThereIsAWarning) {
  { const Manager gone(dir_ / "notify"); }
  setenv("NOTIFY_SOCKET", (dir_ / "notify").c_str(), 1);
  Daemon daemon(arguments_);
  unsetenv("NOTIFY_SOCKET");
  EXPECT_THAT(daemon.AwaitLine("\"warning\""), HasSubstr("NOTIFY_SOCKET"));
  EXPECT_NE(daemon.AwaitLine("\"listening\""), "");
}

}  // namespace
}  // namespace gabion::service
