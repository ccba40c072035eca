// Finding zeros in memory: fast on zeros, and next to free on anything else.
#pragma once

#include <cstddef>
#include <cstring>

#include "engine/base/units.h"

namespace gabion::block {

namespace internal {
bool IsZeroBehindStart(Bytes bytes);
}  // namespace internal

// True if every byte is zero; true for no bytes. Data is mostly recognised by its first word.
inline bool IsZero(Bytes bytes) {
  if (bytes.size() >= sizeof(uint64_t)) {
    uint64_t word;
    std::memcpy(&word, bytes.data(), sizeof(word));
    if (word != 0) return false;
  }
  return internal::IsZeroBehindStart(bytes);
}

// A run of zeros within a window, in bytes from the window's start.
struct ZeroRun {
  std::size_t begin = 0;
  std::size_t end = 0;
  friend bool operator==(const ZeroRun&, const ZeroRun&) = default;
};

// Walks the runs of zero blocks in a window of a disk, from its start to its end. Blocks are the
// multiples of `block` on the disk; the first and the last may be cut off by the window. Reported
// are the runs of whole blocks that cannot grow, and of those only
//   - runs of at least `shortest` bytes, and
//   - the runs at the two edges of the window of at least `shortest_at_edge` bytes.
// Between the edges it looks at one block in `shortest / block` only, until it finds a zero one.
// A plain value that borrows the window.
class ZeroRunScanner {
 public:
  // REQUIRES: `block` is a power of two; `shortest` is a multiple of it.
  ZeroRunScanner(Bytes window, ByteOffset window_start, std::size_t block, std::size_t shortest,
                 std::size_t shortest_at_edge);

  // The next run; false at the end.
  bool Next(ZeroRun& run);

 private:
  // Where block `index` starts and ends in the window.
  std::size_t BlockBegin(std::size_t index) const;
  bool BlockIsZero(std::size_t index) const;
  // Finds the zeros at both edges; true if there is a run at the start to report.
  bool FindEdges(ZeroRun& run);
  bool NextInside(ZeroRun& run);

  const Bytes window_;
  const std::size_t skew_;  // bytes of the first block that lie before the window
  const std::size_t block_;
  const std::size_t stride_;  // blocks in the shortest run between the edges
  const std::size_t shortest_at_edge_;
  std::size_t blocks_;          // in the window, cut ones included
  std::size_t inside_end_ = 0;  // first block of the zeros at the end
  std::size_t known_data_ = 0;  // the last block behind us that is not zero
  enum class Step { kStart, kInside, kEnd, kDone } step_ = Step::kStart;
};

}  // namespace gabion::block
