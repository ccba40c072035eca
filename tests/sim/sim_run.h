// One simulation: an image is made, used, crashed, checked and opened again, all from one seed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tests/sim/format.h"

namespace gabion::sim {

struct SimRunOptions {
  uint64_t sessions = 5;      // opens of the image
  uint64_t operations = 400;  // at most, per session
  bool backing = true;        // some images have one, if the format can
  bool faults = true;         // some sessions have calls that fail
};

struct SimReport {
  uint64_t operations = 0;
  uint64_t crashes = 0;
  uint64_t clean_closes = 0;
  std::vector<std::string> findings;  // empty: all was well
};

// Runs the simulation `seed` of `format`, up to the first finding. The same seed does the same.
SimReport RunSim(const SimFormat& format, uint64_t seed, const SimRunOptions& options);

// Every format there is.
std::vector<const SimFormat*> AllFormats();

// What people are shown: how to run `seed` again, and what it found.
std::string Describe(const SimFormat& format, uint64_t seed, const SimReport& report);

}  // namespace gabion::sim
