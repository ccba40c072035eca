#include "service/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <regex>
#include <string>
#include <thread>
#include <vector>

namespace gabion::service {
namespace {

class LogTest : public testing::Test {
 protected:
  LogTest() { EXPECT_EQ(pipe(ends_), 0); }
  ~LogTest() override { close(ends_[0]); }

  // All that was written; nothing can be logged after it.
  std::vector<std::string> Lines() {
    close(ends_[1]);
    std::string text;
    char buffer[4096];
    for (ssize_t size; (size = read(ends_[0], buffer, sizeof(buffer))) > 0;) {
      text.append(buffer, static_cast<size_t>(size));
    }
    std::vector<std::string> lines;
    for (size_t at = 0; at < text.size();) {
      const size_t end = text.find('\n', at);
      lines.push_back(text.substr(at, end - at));
      at = end == std::string::npos ? text.size() : end + 1;
    }
    return lines;
  }

  int ends_[2];
};

TEST_F(LogTest, ALineIsOneJsonObjectWithItsFields) {
  JsonLogger log(LogLevel::kInfo, ends_[1]);
  log.Log(LogLevel::kWarning, "nbd", "peer \"x\"\nleft", {{"export", "exports/e"}});
  const auto lines = Lines();
  ASSERT_EQ(lines.size(), 1u);
  const std::regex shape(
      R"(\{"ts":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z","level":"warning","component":"nbd",)"
      R"("msg":"peer \\"x\\"\\nleft","export":"exports/e"\})");
  EXPECT_TRUE(std::regex_match(lines[0], shape)) << lines[0];
}

TEST_F(LogTest, WhatIsBelowTheLevelIsDropped) {
  JsonLogger log(LogLevel::kWarning, ends_[1]);
  log.Log(LogLevel::kInfo, "a", "no");
  log.Log(LogLevel::kWarning, "a", "one");
  log.SetLevel(LogLevel::kDebug);
  log.Log(LogLevel::kDebug, "a", "two");
  EXPECT_EQ(Lines().size(), 2u);
}

TEST_F(LogTest, LinesOfManyThreadsDoNotMix) {
  JsonLogger log(LogLevel::kInfo, ends_[1]);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 50; ++i) log.Log(LogLevel::kInfo, "t", std::string(100, 'x'));
    });
  }
  for (std::thread& thread : threads) thread.join();
  const auto lines = Lines();
  EXPECT_EQ(lines.size(), 200u);
  for (const std::string& line : lines) {
    EXPECT_THAT(line, testing::StartsWith("{\"ts\":"));
    EXPECT_THAT(line, testing::EndsWith(std::string(100, 'x') + "\"}"));
  }
}

}  // namespace
}  // namespace gabion::service
