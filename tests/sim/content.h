// What the operations of a simulation write: bytes that tell which operation wrote them, and where.
#pragma once

#include <cstdint>
#include <string>

#include "engine/base/units.h"

namespace gabion::sim {

// Numbers an operation that writes, in the order in which they began.
using OpId = uint64_t;

// The content of operation `op` at position p of the disk, for every op and p: pseudo-random bytes
// that differ between operations, positions and simulations, and can be traced back. A plain value.
class Content {
 public:
  explicit Content(uint64_t salt) : salt_(salt) {}

  // What `op` writes at `offset`.
  void Fill(OpId op, uint64_t offset, MutableBytes dst) const;
  // True if `bytes`, found at `offset`, are what `op` wrote there.
  bool Matches(OpId op, uint64_t offset, Bytes bytes) const;
  // Says for people where `bytes`, found at `offset`, come from. `operations`: how many there were.
  std::string Trace(uint64_t offset, Bytes bytes, OpId operations) const;

 private:
  uint64_t Word(OpId op, uint64_t index) const;
  // The byte of `op` at position `at`.
  std::byte ByteAt(OpId op, uint64_t at) const;

  uint64_t salt_;
};

// True if all are zero.
bool IsZero(Bytes bytes);

}  // namespace gabion::sim
