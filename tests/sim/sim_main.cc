// gabion_sim_run [--minutes N] [--format NAME] [--seed SEED] [--operations N] [--sessions N]
// [--faults 0|1]: simulations one after the other, with seeds that count up from GABION_SEED or a
// random number, until the time is over or one fails. --seed runs that one only.
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "tests/sim/sim_run.h"
#include "tests/support/random_source.h"

namespace gabion::sim {
namespace {

struct Flags {
  double minutes = 1;
  std::string format;
  bool one_seed = false;
  uint64_t seed = 0;
  SimRunOptions options;
};

// Of the simulation that runs now: an assertion that fails says no more than where it is.
uint64_t current_seed = 0;
const char* current_format = "";

void SaySeed(int) {
  std::fprintf(stderr, "gabion_sim_run --format %s --seed %llu ends the process\n", current_format,
               static_cast<unsigned long long>(current_seed));
  std::signal(SIGABRT, SIG_DFL);
}

bool Parse(int argc, char** argv, Flags& flags) {
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string_view name = argv[i];
    const char* value = argv[i + 1];
    if (name == "--minutes") {
      flags.minutes = std::strtod(value, nullptr);
    } else if (name == "--format") {
      flags.format = value;
    } else if (name == "--seed") {
      flags.one_seed = true;
      flags.seed = std::strtoull(value, nullptr, 0);
    } else if (name == "--operations") {
      flags.options.operations = std::strtoull(value, nullptr, 0);
    } else if (name == "--sessions") {
      flags.options.sessions = std::strtoull(value, nullptr, 0);
    } else if (name == "--faults") {
      flags.options.faults = std::strtoull(value, nullptr, 0) != 0;
    } else {
      return false;
    }
  }
  return argc % 2 == 1;
}

int Run(const Flags& flags) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point end =
      Clock::now() + std::chrono::milliseconds(static_cast<int64_t>(flags.minutes * 60'000));
  uint64_t seed = flags.one_seed ? flags.seed : test::ProcessSeed();
  SimReport total;
  uint64_t runs = 0;
  do {
    for (const SimFormat* format : AllFormats()) {
      const std::string name(format->name());
      if (!flags.format.empty() && name != flags.format) continue;
      current_seed = seed;
      current_format = name.c_str();
      const SimReport report = RunSim(*format, seed, flags.options);
      ++runs;
      total.operations += report.operations;
      total.crashes += report.crashes;
      total.clean_closes += report.clean_closes;
      if (report.findings.empty()) continue;
      std::fprintf(stderr, "%s\n", Describe(*format, seed, report).c_str());
      return 1;
    }
    ++seed;
  } while (!flags.one_seed && Clock::now() < end);
  std::printf(
      "%llu simulations, %llu operations, %llu crashes, %llu clean closes: all as promised\n",
      static_cast<unsigned long long>(runs), static_cast<unsigned long long>(total.operations),
      static_cast<unsigned long long>(total.crashes),
      static_cast<unsigned long long>(total.clean_closes));
  return 0;
}

}  // namespace
}  // namespace gabion::sim

int main(int argc, char** argv) {
  gabion::sim::Flags flags;
  if (!gabion::sim::Parse(argc, argv, flags)) {
    std::fprintf(stderr,
                 "usage: %s [--minutes N] [--format NAME] [--seed SEED] [--operations N] "
                 "[--sessions N] [--faults 0|1]\n",
                 argv[0]);
    return 2;
  }
  std::signal(SIGABRT, &gabion::sim::SaySeed);
  return gabion::sim::Run(flags);
}
