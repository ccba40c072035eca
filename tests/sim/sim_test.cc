// Every format keeps its promises through concurrency, crashes and faults.
#include <gtest/gtest.h>

#include <string>

#include "tests/sim/sim_run.h"
#include "tests/support/random_source.h"

namespace gabion::sim {
namespace {

constexpr uint64_t kOperations = 200'000;  // of each format, at least

class SimTest : public testing::TestWithParam<const SimFormat*> {};

TEST_P(SimTest, KeepsItsPromises) {
  const SimFormat& format = *GetParam();
  test::RandomSource random;
  SimReport total;
  while (total.operations < kOperations) {
    const uint64_t seed = random.Next();
    SCOPED_TRACE(seed);
    const SimReport report = RunSim(format, seed, {});
    ASSERT_TRUE(report.findings.empty()) << Describe(format, seed, report);
    total.operations += report.operations;
    total.crashes += report.crashes;
    total.clean_closes += report.clean_closes;
  }
  EXPECT_GT(total.crashes, kOperations / 2000);
  EXPECT_GT(total.clean_closes, kOperations / 4000);
}

INSTANTIATE_TEST_SUITE_P(Formats, SimTest, testing::ValuesIn(AllFormats()),
                         [](const auto& format) { return std::string(format.param->name()); });

}  // namespace
}  // namespace gabion::sim
