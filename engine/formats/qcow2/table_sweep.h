// Tables that may lie over each other: every byte of them once, with how many tables hold it.
#pragma once

#include <cstdint>
#include <vector>

namespace gabion::qcow2 {

// A run of bytes of the file that `tables` tables hold.
struct SweepRun {
  uint64_t offset = 0;
  uint64_t length = 0;
  uint64_t tables = 0;
  friend bool operator==(const SweepRun&, const SweepRun&) = default;
};

// A plain value. What reads the runs does work in proportion to the bytes that the tables cover
// together, however often a hostile image points at them.
class TableSweep {
 public:
  // REQUIRES: offset + length does not overflow.
  void Add(uint64_t offset, uint64_t length);
  // Ascending, disjoint, with at least one table each.
  std::vector<SweepRun> Runs() const;

 private:
  struct Edge {
    uint64_t offset;
    bool begins;
  };
  std::vector<Edge> edges_;
};

}  // namespace gabion::qcow2
