// Raw images in a simulation.
#pragma once

#include "tests/sim/format.h"

namespace gabion::sim {

// Raw over files of every kind: cached and direct, with and without holes. Stateless.
const SimFormat& RawFormat();

}  // namespace gabion::sim
