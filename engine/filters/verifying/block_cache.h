// Blocks in memory, as many as there is room for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "engine/base/units.h"

namespace gabion::filters::verifying {

// The blocks that were used last, by their place. Owned by a filter; used on its shard.
class BlockCache {
 public:
  // Holds at most `most` blocks. REQUIRES: at least one.
  explicit BlockCache(std::size_t most);

  // A block's bytes, until the next call of Keep(); none if it is not here.
  Bytes Find(uint64_t place);
  // Takes a copy of `bytes`, in place of what was there, or of what has not been used for longest;
  // gives that copy. REQUIRES: there are bytes.
  Bytes Keep(uint64_t place, Bytes bytes);

 private:
  struct Entry {
    uint64_t place = 0;
    std::vector<std::byte> bytes;
  };
  using Entries = std::list<Entry>;

  // Makes `entry` the one that was used last.
  void Touch(Entries::iterator entry) { entries_.splice(entries_.begin(), entries_, entry); }

  const std::size_t most_;
  Entries entries_;
  absl::flat_hash_map<uint64_t, Entries::iterator> by_place_;
};

}  // namespace gabion::filters::verifying
