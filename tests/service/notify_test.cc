#include "service/notify.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <condition_variable>
#include <mutex>
#include <optional>

#include "tests/service/temp_dir.h"

namespace gabion::service {
namespace {

using testing::HasSubstr;
using Environment = std::map<std::string, std::string>;
using Answer = absl::AnyInvocable<void() &&>;

std::string MessageOf(const absl::Status& status) { return std::string(status.message()); }

// The service manager's end: a datagram socket at a path, or at an abstract name ('@...').
class Manager {
 public:
  explicit Manager(const std::string& name) : fd_(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    name.copy(address.sun_path, sizeof(address.sun_path));
    size_t length = offsetof(sockaddr_un, sun_path) + name.size();
    if (name.front() == '@') {
      address.sun_path[0] = '\0';
    } else if (name.size() < sizeof(address.sun_path)) {
      ++length;
    }
    EXPECT_EQ(bind(fd_, reinterpret_cast<const sockaddr*>(&address), socklen_t(length)), 0) << name;
  }
  ~Manager() { Close(); }
  Manager(const Manager&) = delete;
  Manager& operator=(const Manager&) = delete;

  // The next message; waits for it.
  std::string Next() {
    char text[4096];
    const ssize_t length = recv(fd_, text, sizeof(text), 0);
    return length < 0 ? "none" : std::string(text, size_t(length));
  }
  bool Empty() {
    char text[1];
    return recv(fd_, text, sizeof(text), MSG_DONTWAIT | MSG_PEEK) < 0;
  }
  void Close() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }

 private:
  int fd_;
};

std::unique_ptr<Notifier> Open(const Environment& environment) {
  auto notifier = Notifier::Open(environment);
  EXPECT_TRUE(notifier.ok()) << notifier.status();
  return notifier.ok() ? *std::move(notifier) : std::make_unique<Notifier>();
}

TEST(NotifyTest, APathIsToldOfTheBeginningAndTheEnd) {
  const TempDir dir;
  Manager manager(dir / "notify");
  const auto notifier = Open({{"NOTIFY_SOCKET", dir / "notify"}});
  EXPECT_TRUE(notifier->Ready("serving").ok());
  EXPECT_EQ(manager.Next(), "READY=1\nSTATUS=serving\n");
  EXPECT_TRUE(notifier->Stopping("draining").ok());
  EXPECT_EQ(manager.Next(), "STOPPING=1\nSTATUS=draining\n");
}

TEST(NotifyTest, SoIsAnAbstractNameOfAnyLength) {
  const std::string unique = "@gabion-notify-test-" + std::to_string(getpid());
  for (const std::string& name : {unique, unique + std::string(108 - unique.size(), 'x')}) {
    Manager manager(name);
    EXPECT_TRUE(Open({{"NOTIFY_SOCKET", name}})->Ready("serving").ok());
    EXPECT_EQ(manager.Next(), "READY=1\nSTATUS=serving\n");
  }
}

TEST(NotifyTest, WithoutASocketNothingIsSaid) {
  const auto notifier = Open({{"WATCHDOG_USEC", "1000"}});
  EXPECT_TRUE(notifier->Ready("serving").ok());
  EXPECT_EQ(notifier->watchdog_timeout().count(), 0);
  notifier->StartWatchdog([](Answer) { ADD_FAILURE() << "nobody waits for it"; });
}

TEST(NotifyTest, WhatCannotBeUnderstoodIsNamed) {
  for (const char* name : {"", "@", "/", "relative/path", "vsock:2:1234"}) {
    const auto opened = Notifier::Open({{"NOTIFY_SOCKET", name}});
    EXPECT_EQ(opened.status().code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_THAT(MessageOf(opened.status()), HasSubstr("NOTIFY_SOCKET"));
  }
  EXPECT_FALSE(Notifier::Open({{"NOTIFY_SOCKET", "/" + std::string(107, 'x')}}).ok());
  for (const char* number : {"", "0", "-1", "x", "1s", "99999999999999999999"}) {
    const auto opened = Notifier::Open({{"NOTIFY_SOCKET", "@x"}, {"WATCHDOG_USEC", number}});
    EXPECT_EQ(opened.status().code(), absl::StatusCode::kInvalidArgument) << number;
    EXPECT_THAT(MessageOf(opened.status()), HasSubstr("WATCHDOG_USEC"));
  }
}

TEST(NotifyTest, AManagerThatIsNotThereOrHasGoneIsAnError) {
  const TempDir dir;
  const Environment environment = {{"NOTIFY_SOCKET", dir / "notify"}};
  EXPECT_EQ(Notifier::Open(environment).status().code(), absl::StatusCode::kUnavailable);
  Manager manager(dir / "notify");
  const auto notifier = Open(environment);
  manager.Close();
  EXPECT_EQ(notifier->Ready("serving").code(), absl::StatusCode::kUnavailable);
}

TEST(NotifyTest, TheWatchdogIsOurOwnOnly) {
  const TempDir dir;
  const Manager manager(dir / "notify");
  Environment environment = {{"NOTIFY_SOCKET", dir / "notify"}, {"WATCHDOG_USEC", "2000000"}};
  EXPECT_EQ(Open(environment)->watchdog_timeout(), std::chrono::seconds(2));
  environment["WATCHDOG_PID"] = std::to_string(getpid());
  EXPECT_EQ(Open(environment)->watchdog_timeout(), std::chrono::seconds(2));
  environment["WATCHDOG_PID"] = std::to_string(getppid());
  EXPECT_EQ(Open(environment)->watchdog_timeout().count(), 0);
}

// Answers at once, until the third probe, whose answer it keeps.
class Process {
 public:
  void Probe(Answer answer) {
    if (++probes_ < 3) return std::move(answer)();
    const std::lock_guard lock(mutex_);
    kept_ = std::move(answer);
    changed_.notify_all();
  }
  Answer Kept() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return kept_.has_value(); });
    return *std::exchange(kept_, std::nullopt);
  }

 private:
  int probes_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<Answer> kept_;
};

TEST(NotifyTest, LifeIsSignalledForAnswersOnly) {
  const TempDir dir;
  Manager manager(dir / "notify");
  Process process;
  const auto notifier = Open({{"NOTIFY_SOCKET", dir / "notify"}, {"WATCHDOG_USEC", "2000"}});
  notifier->StartWatchdog([&](Answer answer) { process.Probe(std::move(answer)); });
  EXPECT_EQ(manager.Next(), "WATCHDOG=1\n");
  EXPECT_EQ(manager.Next(), "WATCHDOG=1\n");
  Answer late = process.Kept();
  EXPECT_TRUE(manager.Empty());  // asked for the third time, and not answered
  std::move(late)();
  EXPECT_EQ(manager.Next(), "WATCHDOG=1\n");
}

TEST(NotifyTest, AProbeThatIsNotAnsweredDoesNotHoldUpTheEnd) {
  const TempDir dir;
  Manager manager(dir / "notify");
  std::optional<Answer> late;
  std::mutex mutex;
  std::condition_variable changed;
  {
    const auto notifier = Open({{"NOTIFY_SOCKET", dir / "notify"}, {"WATCHDOG_USEC", "2000"}});
    notifier->StartWatchdog([&](Answer answer) {
      const std::lock_guard lock(mutex);
      late = std::move(answer);
      changed.notify_all();
    });
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return late.has_value(); });
    lock.unlock();
    notifier->StopWatchdog();
  }
  std::move (*late)();  // nobody is there to hear it
  EXPECT_TRUE(manager.Empty());
}

}  // namespace
}  // namespace gabion::service
