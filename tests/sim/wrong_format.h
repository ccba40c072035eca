// Raw images with a bug: what the simulation must find.
#pragma once

#include <memory>

#include "tests/sim/format.h"

namespace gabion::sim {

enum class Bug {
  kFlushDoesNotSync,
  kFuaIgnored,
  kAnswersEarly,     // a write is answered before it is done
  kDataCalledZero,   // by block status, now and then
  kStaleReads,       // now and then what was read before
  kLostWrites,       // answered and not done, now and then
  kMisplacedWrites,  // a sector too far, now and then
  kLongWrites,       // with bytes behind the end, now and then
  kZeroedDiscards,   // also around the range
};

// Owned by a test. `world` comes from the file: the format has no state.
std::unique_ptr<SimFormat> NewWrongFormat(Bug bug);

}  // namespace gabion::sim
