// Reads ahead of clients that read in order.
#pragma once

#include <cstdint>
#include <memory>

#include "engine/block/node.h"
#include "engine/filters/filter.h"

namespace gabion::filters {

struct ReadaheadOptions {
  uint32_t max_window = 2 * 1024 * 1024;  // bytes
  friend bool operator==(const ReadaheadOptions&, const ReadaheadOptions&) = default;
};

// A read that begins where a recent one ended (of up to 8 sequences at once) has the child Cache()
// a window behind it, beside the read; the window doubles with each such read, from twice the read
// to `max_window`, and what has been asked for is not asked for again. Nothing is asked for while
// more than half a window still lies ahead, so that small reads do not each cost a call. At most
// one Cache() per sequence is under way; its errors are ignored. Close() and Resize() wait for
// those. Effect on content, status, size, block sizes: none.
std::unique_ptr<LiveFilter<ReadaheadOptions>> NewReadahead(block::Node& child,
                                                           Environment environment,
                                                           const ReadaheadOptions& options);

}  // namespace gabion::filters
