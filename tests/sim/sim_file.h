// A file of the simulated machine.
#pragma once

#include <cstdint>
#include <memory>

#include "engine/io/file.h"
#include "tests/sim/sim_world.h"

namespace gabion::sim {

struct SimFileOptions {
  bool writable = true;
  uint32_t alignment = 1;
  bool can_punch = true;
  bool can_keep_allocated = true;
  bool can_map = true;  // false: everything is data
};

// Opens `disk`. Every call waits for its turn, at least once; reads and writes may go sector by
// sector in any order, with other calls in between. Calls fail as world.faults() says, and all of
// them after a crash. Breaking the contract of io::File (alignment, calls that run alone, calls
// after Close()) ends the process. `world` and `disk` outlive the file.
std::unique_ptr<io::File> OpenSimFile(SimWorld& world, SimDisk& disk,
                                      const SimFileOptions& options);

}  // namespace gabion::sim
