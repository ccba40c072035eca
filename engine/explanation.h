// Why a range of a disk is what it is: the way from what clients are told down to the file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/units.h"
#include "engine/block/extent.h"

namespace gabion::engine {

// One node on the way, from the top.
struct ExplainedStep {
  enum class What {
    kFilter,   // an entry of the stack
    kAligner,  // makes any range out of a disk that takes whole units only; the engine put it in
    kTail,     // makes the size a multiple of the minimum block size
  };
  enum class Effect {
    kNone,      // what is below shows through as it is
    kBypassed,  // the entry is there, and requests pass it by
    kShifted,   // the same, from another offset below
    kForced,    // what is below is shown as something else
    kMadeUp,    // nothing is below: the step itself supplies zeros
    kKept,      // the step keeps these bytes apart from what is below
  };
  What what = What::kFilter;
  Effect effect = Effect::kNone;
  std::string entry_id;             // of kFilter
  std::size_t kind = 0;             // of kFilter: the index in FilterOptions
  std::optional<ByteOffset> below;  // where the range begins below; none if kMadeUp or kKept
  block::Extent shown;              // what the step shows of the range
};

// One image of a chain, from the top: the export's, or that which a step keeps bytes in.
struct ExplainedLayer {
  enum class State {
    kData,           // it holds the bytes
    kZeroAllocated,  // it says that they are zero, and keeps space for them
    kZero,           // it says that they are zero, or has a hole there
    kPasses,         // it has nothing there: the image below decides
    kPastEnd,        // it ends before: zeros, and nothing further down is looked at (rule S-5)
    kNothing,        // it has nothing there, and there is no image below: zeros (rule S-6)
  };
  uint32_t depth = 1;
  std::string image;      // images/{image}
  std::string file_name;  // relative to its pool
  State state = State::kPasses;
  std::optional<uint64_t> host_offset;  // in that file
  bool compressed = false;
};

// What clients are told of the unit, or the units, that the range is or is a part of.
struct ExplainedUnits {
  uint32_t granule = 1;
  ByteRange units;    // multiples of the granule, but for the end of the export
  bool hole = false;  // base:allocation
  bool zero = false;
  uint32_t depth = 0;          // qemu:allocation-depth
  uint32_t maximum_depth = 0;  // x-gabion:allocation-depth-max
  // The unit holds more than this one range: what it is told as follows from all of them.
  bool merged = false;
  bool has_padding = false;  // and padding, which changes nothing (rule S-27)
};

// Of a range that is one kind of bytes at every step.
struct Explanation {
  ByteRange range;
  std::optional<ExplainedUnits> told;  // of an export
  std::vector<ExplainedStep> steps;    // of an export
  std::vector<ExplainedLayer> layers;  // empty if a step has the bytes, but not in an image
};

}  // namespace gabion::engine
