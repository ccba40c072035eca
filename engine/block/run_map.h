// What is known of the units of a disk: one small number for each, kept as runs of equal ones.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>

namespace gabion::block {

// Maps every unit, by its ordinal, to a state; units that were never set are in state 0, and take
// no memory. Costs are logarithmic in the number of runs, however long these are. A plain value.
class RunMap {
 public:
  // The units [begin, end) have one state, and the units beside them another.
  struct Run {
    uint64_t begin = 0;
    uint64_t end = 0;
    uint8_t state = 0;
    friend bool operator==(const Run&, const Run&) = default;
  };

  // The run that holds `unit`. A run of state 0 behind all others ends at ~0.
  Run Find(uint64_t unit) const;

  // Puts the units [begin, end) into `state`. REQUIRES: begin <= end.
  void Set(uint64_t begin, uint64_t end, uint8_t state);

  // Runs of other states than 0: what the map takes memory for.
  std::size_t size() const { return runs_.size(); }
  // Units in `state`, which is not 0.
  uint64_t CountUnits(uint8_t state) const { return units_[state]; }

  // States are below this.
  static constexpr uint8_t kStates = 4;

 private:
  struct Rest {
    uint64_t end;
    uint8_t state;
  };
  // Begin of a run -> the rest of it. Neighbours that touch have different states.
  using Runs = std::map<uint64_t, Rest>;

  // Makes a run begin at `unit`, if it lies within one.
  void SplitAt(uint64_t unit);

  Runs runs_;
  uint64_t units_[kStates] = {};
};

}  // namespace gabion::block
