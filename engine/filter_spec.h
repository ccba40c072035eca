// The filters of an export as the control plane declares them. Plain values.
#pragma once

#include <string>
#include <variant>

#include "engine/filters/align.h"
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

namespace gabion::engine {

using FilterOptions =
    std::variant<filters::AlignOptions, filters::DelayOptions, filters::FaultOptions,
                 filters::FeatureMaskOptions, filters::LogOptions, filters::LuksOptions,
                 filters::ReadaheadOptions, filters::ReadOnlyOptions, filters::ResizeOptions,
                 filters::RetryOptions, filters::SliceOptions, filters::StatsOptions,
                 filters::ThrottleOptions, filters::WriteProtectOptions>;

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
