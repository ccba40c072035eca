#include "engine/filters/verifying/block_cache.h"

#include <iterator>

#include "engine/base/check.h"

namespace gabion::filters::verifying {

BlockCache::BlockCache(std::size_t most) : most_(most) { CHECK_GE(most, 1u); }

Bytes BlockCache::Find(uint64_t place) {
  const auto found = by_place_.find(place);
  if (found == by_place_.end()) return {};
  Touch(found->second);
  return found->second->bytes;
}

Bytes BlockCache::Keep(uint64_t place, Bytes bytes) {
  CHECK(!bytes.empty());
  const auto found = by_place_.find(place);
  if (found != by_place_.end()) {
    Touch(found->second);
  } else if (entries_.size() < most_) {
    entries_.emplace_front();
  } else {
    by_place_.erase(entries_.back().place);
    Touch(std::prev(entries_.end()));
  }
  Entry& entry = entries_.front();
  entry.place = place;
  entry.bytes.assign(bytes.begin(), bytes.end());
  by_place_[place] = entries_.begin();
  return entry.bytes;
}

}  // namespace gabion::filters::verifying
