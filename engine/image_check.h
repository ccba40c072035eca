// Checking and repairing image files: what is asked, and what is found. Plain values but for
// CheckControl.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/units.h"
#include "engine/image_spec.h"

namespace gabion::engine {

enum class ImageRepair {
  kNone,
  kLeaks,  // space that nothing uses is given back
  kAll,    // and what contradicts itself is set right, as far as nothing is lost by that
};

// One thing that is wrong.
struct CheckFinding {
  std::string kind;                      // "leak", "refcount too low", ...
  std::optional<uint64_t> host_offset;   // bytes from the start of the file
  std::optional<uint64_t> guest_offset;  // bytes from the start of the disk
  std::string text;                      // one sentence
};

// Counts are those of `qemu-img check`.
struct CheckReport {
  uint64_t corruptions = 0;  // that there are, after repairs
  uint64_t leaks = 0;        // clusters
  uint64_t check_errors = 0;
  uint64_t corruptions_fixed = 0;
  uint64_t leaks_fixed = 0;
  uint64_t image_end_offset = 0;  // bytes
  uint64_t total_clusters = 0;
  uint64_t allocated_clusters = 0;
  uint64_t fragmented_clusters = 0;
  uint64_t compressed_clusters = 0;
  std::vector<CheckFinding> findings;  // what is wrong, or was before a repair; at most 100
  uint64_t findings_left_out = 0;
};

// How a check goes on, and how it is stopped. Owned by who asked, outlives the check; any thread.
struct CheckControl {
  std::atomic<uint64_t> done = 0;  // of `total`; a measure of work
  std::atomic<uint64_t> total = 0;
  std::atomic<bool> cancel = false;
};

}  // namespace gabion::engine
