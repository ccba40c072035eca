// Metadata contexts: which of an export's contexts a client's queries mean. Pure functions: any
// thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace gabion::nbd {

// The one context that the protocol document itself defines.
inline constexpr std::string_view kBaseAllocation = "base:allocation";
// How deep in its chain of images a unit is allocated: 1 in the image itself, 2 in its backing
// image, ..., 0 in none. The first tells the topmost layer that touches the unit, as QEMU's servers
// do for clients that copy what a layer holds; the second the deepest one, and one more than there
// are layers if a part of the unit is in none. Neither follows from the other (rule S-10).
inline constexpr std::string_view kAllocationDepth = "qemu:allocation-depth";
inline constexpr std::string_view kAllocationDepthMax = "x-gabion:allocation-depth-max";

// A context as selected by a client: `id` stands for `name` in BLOCK_STATUS replies.
struct MetaContext {
  uint32_t id = 0;
  std::string name;
  friend bool operator==(const MetaContext&, const MetaContext&) = default;
};

// For NBD_OPT_LIST_META_CONTEXT: the members of `available` that `queries` ask for, in the order of
// `available`. No query means all. A query that ends in a colon ("base:", "qemu:dirty-bitmap:")
// means all contexts that start with it. Queries that match nothing are ignored: the protocol wants
// unknown namespaces passed over in silence.
std::vector<std::string> ListContexts(const std::vector<std::string>& available,
                                      const std::vector<std::string>& queries);

// For NBD_OPT_SET_META_CONTEXT: only full names select; no query selects nothing. The id of a
// context is its ordinal in `available`, from 1.
std::vector<MetaContext> SelectContexts(const std::vector<std::string>& available,
                                        const std::vector<std::string>& queries);

}  // namespace gabion::nbd
