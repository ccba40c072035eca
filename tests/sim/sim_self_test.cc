// The simulation finds what is wrong, and only that.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <string_view>

#include "tests/sim/sim_run.h"
#include "tests/sim/toy_format.h"
#include "tests/sim/wrong_format.h"
#include "tests/support/random_source.h"

namespace gabion::sim {
namespace {

constexpr uint64_t kMostRuns = 60;
// Whatever goes wrong here is the bug, not a fault.
constexpr SimRunOptions kOptions{.sessions = 6, .operations = 300, .faults = false};

bool HasFinding(const SimReport& report, std::string_view start) {
  return std::any_of(report.findings.begin(), report.findings.end(),
                     [start](std::string_view finding) { return finding.starts_with(start); });
}

// What the first simulation found, of `runs`, in which a finding begins with `start`; empty if none
// did.
std::string FirstFinding(const SimFormat& format, uint64_t runs, std::string_view start = "") {
  test::RandomSource random;
  for (uint64_t i = 0; i < runs; ++i) {
    const uint64_t seed = random.Next();
    const SimReport report = RunSim(format, seed, kOptions);
    if (report.findings.empty()) continue;
    std::string finding = Describe(format, seed, report);
    std::printf("%s\n", finding.c_str());
    if (HasFinding(report, start)) return finding;
  }
  return "";
}

class WrongNodeTest : public testing::TestWithParam<Bug> {};

TEST_P(WrongNodeTest, IsFound) {
  const std::unique_ptr<SimFormat> format = NewWrongFormat(GetParam());
  // Where a crash or a request in flight leaves a choice, the model takes zeros at their word; then
  // it is the next read that contradicts them.
  const bool is_of_status = GetParam() == Bug::kDataCalledZero;
  EXPECT_NE(FirstFinding(*format, kMostRuns, is_of_status ? "status of " : ""), "");
}

INSTANTIATE_TEST_SUITE_P(Bugs, WrongNodeTest,
                         testing::Values(Bug::kFlushDoesNotSync, Bug::kFuaIgnored,
                                         Bug::kAnswersEarly, Bug::kDataCalledZero, Bug::kStaleReads,
                                         Bug::kLostWrites, Bug::kMisplacedWrites, Bug::kLongWrites,
                                         Bug::kZeroedDiscards));

TEST(ToyFormatTest, InTheRightOrderKeepsItsPromises) {
  const std::unique_ptr<SimFormat> format = NewToyFormat(ToyOrder::kRight);
  EXPECT_EQ(FirstFinding(*format, kMostRuns), "");
}

TEST(ToyFormatTest, EarlyMetadataAreFound) {
  const std::unique_ptr<SimFormat> format = NewToyFormat(ToyOrder::kEarlyMetadata);
  EXPECT_NE(FirstFinding(*format, kMostRuns), "");
}

TEST(ToyFormatTest, EarlyReuseIsFound) {
  const std::unique_ptr<SimFormat> format = NewToyFormat(ToyOrder::kEarlyReuse);
  EXPECT_NE(FirstFinding(*format, kMostRuns), "");
}

TEST(ToyFormatTest, MetadataThatNoFlushCoversAreFound) {
  const std::unique_ptr<SimFormat> format = NewToyFormat(ToyOrder::kNoFlush);
  EXPECT_NE(FirstFinding(*format, kMostRuns), "");
}

TEST(SimRunTest, TheSameSeedDoesTheSame) {
  const std::unique_ptr<SimFormat> format = NewWrongFormat(Bug::kFuaIgnored);
  test::RandomSource random;
  for (int i = 0; i < 10; ++i) {
    const uint64_t seed = random.Next();
    const SimReport first = RunSim(*format, seed, kOptions);
    const SimReport second = RunSim(*format, seed, kOptions);
    EXPECT_EQ(first.operations, second.operations);
    EXPECT_EQ(first.crashes, second.crashes);
    EXPECT_EQ(first.findings, second.findings);
  }
}

}  // namespace
}  // namespace gabion::sim
