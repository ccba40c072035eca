// Compares a disk with another one that must have the same bytes.
#pragma once

#include <memory>

#include "engine/block/node.h"
#include "engine/filters/filter.h"
#include "engine/filters/verifying/verify_options.h"

namespace gabion::filters {

// Every read is made on the child and on `reference`, and compared. A difference is kDataLoss and
// names the first byte that differs. Writes and zeros are made on both, first on the child, and
// must succeed on both; should they not, the two may differ from then on. A discard zeros both
// where that is fast, and else does nothing: what it leaves behind must be the same. Reads and
// changes of the same bytes go one after the other. With kReport a reference that cannot be read is
// told likewise, and fails nothing.
//
// Status: the child's. Limits: the child's; writable, and zeros fast, where both are; the size is
// the smaller one. Resize() is kUnimplemented. Statistics: compared_bytes, mismatches,
// reference_failures.
//
// REQUIRES: the alignment of both nodes is 1. `reference` outlives the filter, and nobody else
// writes to it.
std::unique_ptr<LiveFilter<VerifyOptions>> NewVerify(block::Node& child, Environment environment,
                                                     block::Node& reference,
                                                     const VerifyOptions& options);

}  // namespace gabion::filters
