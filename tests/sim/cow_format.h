// Changes kept apart, in a simulation.
#pragma once

#include "tests/sim/format.h"

namespace gabion::sim {

// The cow filter above a disk that nobody writes to, with a qcow2 image that keeps the changes over
// crashes and restarts. Stateless.
const SimFormat& CowFormat();

}  // namespace gabion::sim
