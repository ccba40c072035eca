// A place in a tree where what is below can be exchanged.
#pragma once

#include "engine/block/filter_node.h"

namespace gabion::block {

// Forwards everything to its child. Owned by an export; used on its shard. Borrows its child.
class SwitchNode final : public FilterNode {
 public:
  explicit SwitchNode(Node& child) : FilterNode(child) {}

  // Puts `child` in place of the one before. REQUIRES: no request is in flight. Nodes above are
  // refreshed by the caller.
  void Switch(Node& child) {
    set_child(child);
    Refresh();
  }
};

}  // namespace gabion::block
