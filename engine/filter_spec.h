// The filters of an export as the control plane declares them. Plain values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>

#include "engine/filters/align.h"
#include "engine/filters/cache.h"
#include "engine/filters/copy_on_read.h"
#include "engine/filters/cow.h"
#include "engine/filters/delay.h"
#include "engine/filters/fault.h"
#include "engine/filters/feature_mask.h"
#include "engine/filters/luks.h"
#include "engine/filters/observe.h"
#include "engine/filters/protect.h"
#include "engine/filters/readahead.h"
#include "engine/filters/resize.h"
#include "engine/filters/retry.h"
#include "engine/filters/slice.h"
#include "engine/filters/throttle.h"
#include "engine/filters/verify.h"
#include "engine/image_spec.h"

namespace gabion::engine {

// Changes are kept apart as long as the entry stays as it is and where it is: the same bytes are
// below it, and it is not bypassed.
struct CowEntry {
  // Changes are kept in this qcow2 image, of any pool, which is open on the export's shard, and
  // stay there; the rest does not matter then. The entry stays above the same bytes while it has it
  // open.
  std::optional<ImageSpec> image;
  filters::CowOptions options;
  // Changes are kept in a file without a name in the pool of the export's image; else in memory.
  bool in_file = false;
  uint64_t max_memory = 256 * kMiB;  // bytes of content
  friend bool operator==(const CowEntry&, const CowEntry&) = default;
};

// Likewise; what was written is in the image when the entry goes, or changes its place.
struct CacheEntry {
  filters::CacheOptions options;
  bool in_file = false;  // as above
  friend bool operator==(const CacheEntry&, const CacheEntry&) = default;
};

// What vouches for a disk whose hash tree lies in an image.
struct TreeRoot {
  std::string digest;  // bytes, of the top of the tree
  uint64_t size = 0;   // bytes that the tree must be of; 0: whatever it says
  friend bool operator==(const TreeRoot&, const TreeRoot&) = default;
};

// The export is compared with `reference`, of any pool, which is open on the export's shard; or
// with the hash tree in it.
struct VerifyEntry {
  ImageSpec reference;
  std::optional<TreeRoot> tree;
  filters::VerifyOptions options;
  friend bool operator==(const VerifyEntry&, const VerifyEntry&) = default;
};

using FilterOptions =
    std::variant<filters::AlignOptions, CacheEntry, filters::CopyOnReadOptions, CowEntry,
                 filters::DelayOptions, filters::FaultOptions, filters::FeatureMaskOptions,
                 filters::LogOptions, filters::LuksOptions, filters::ReadaheadOptions,
                 filters::ReadOnlyOptions, filters::ResizeOptions, filters::RetryOptions,
                 filters::SliceOptions, filters::StatsOptions, filters::ThrottleOptions,
                 VerifyEntry, filters::WriteProtectOptions>;

// One entry of a stack. The first is next to the clients, the last next to the image.
struct FilterEntry {
  std::string id;  // unique in its stack
  // Requests pass by; the state that it shares stays.
  bool bypassed = false;
  // Throttles and faults with the same text here share their state, on all exports; empty: no
  // sharing.
  std::string shared_as;
  FilterOptions options;
  friend bool operator==(const FilterEntry&, const FilterEntry&) = default;
};

// What filters of one entry have counted since the entry was put in its place.
struct FilterStatistics {
  std::string entry_id;
  bool bypassed = false;
  filters::Statistics statistics;
};

}  // namespace gabion::engine
