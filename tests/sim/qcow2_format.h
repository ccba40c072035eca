// qcow2 images in a simulation.
#pragma once

#include "tests/sim/format.h"

namespace gabion::sim {

// qcow2 with clusters, refcounts and subclusters of all sizes, with and without a backing image,
// and with a cache of tables that is often too small. Stateless.
const SimFormat& Qcow2Format();

}  // namespace gabion::sim
