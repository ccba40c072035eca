#include "engine/formats/qcow2/refcount_map.h"

#include <limits>

#include "engine/base/check.h"

namespace gabion::qcow2 {

void RefcountMap::Reset(uint64_t first, uint64_t count) {
  first_ = first;
  count_ = count;
  chunks_.clear();
  chunks_.resize((count >> kChunkBits) + 1);
  large_.clear();
}

const uint16_t* RefcountMap::Find(uint64_t cluster) const {
  CHECK(Holds(cluster));
  const uint64_t index = cluster - first_;
  const auto& chunk = chunks_[index >> kChunkBits];
  return chunk == nullptr ? nullptr : &(*chunk)[index & ((1 << kChunkBits) - 1)];
}

uint16_t& RefcountMap::Make(uint64_t cluster) {
  CHECK(Holds(cluster));
  const uint64_t index = cluster - first_;
  auto& chunk = chunks_[index >> kChunkBits];
  if (chunk == nullptr) chunk = std::make_unique<Chunk>();
  return (*chunk)[index & ((1 << kChunkBits) - 1)];
}

void RefcountMap::Store(uint16_t& counter, uint64_t cluster, uint64_t count) {
  if ((counter & kCountMask) == kCountMask && count < kCountMask) large_.erase(cluster);
  const bool fits = count < kCountMask;
  if (!fits) large_[cluster] = count;
  const uint16_t uses = counter & static_cast<uint16_t>(~kCountMask);
  counter = static_cast<uint16_t>(uses | (fits ? count : kCountMask));
}

void RefcountMap::Add(uint64_t cluster, uint64_t references, Use use) {
  uint16_t& counter = Make(cluster);
  const uint64_t old = Count(cluster);
  const uint64_t room = std::numeric_limits<uint64_t>::max() - old;
  Store(counter, cluster, old + (references < room ? references : room));
  counter = static_cast<uint16_t>(counter | static_cast<uint16_t>(use));
}

uint64_t RefcountMap::Count(uint64_t cluster) const {
  const uint16_t* counter = Find(cluster);
  if (counter == nullptr) return 0;
  const uint16_t count = *counter & kCountMask;
  return count == kCountMask ? large_.at(cluster) : count;
}

bool RefcountMap::NothingIn(uint64_t first, uint64_t count) const {
  CHECK(Holds(first) && Holds(first + count - 1));
  const uint64_t last = (first - first_ + count - 1) >> kChunkBits;
  for (uint64_t chunk = (first - first_) >> kChunkBits; chunk <= last; ++chunk) {
    if (chunks_[chunk] != nullptr) return false;
  }
  return true;
}

void RefcountMap::SetCount(uint64_t cluster, uint64_t count) {
  if (count == 0 && Find(cluster) == nullptr) return;
  Store(Make(cluster), cluster, count);
}

bool RefcountMap::UsedAs(uint64_t cluster, Use use) const {
  const uint16_t* counter = Find(cluster);
  return counter != nullptr && (*counter & static_cast<uint16_t>(use)) != 0;
}

bool RefcountMap::Overlaps(uint64_t cluster) const {
  if (UsedAs(cluster, Use::kSingle)) return Count(cluster) > 1;
  return UsedAs(cluster, Use::kData) && UsedAs(cluster, Use::kL2Table);
}

}  // namespace gabion::qcow2
