// How often each cluster of a file is referred to, counted in memory of bounded size.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

namespace gabion::qcow2 {

// Counters of the clusters of one window of the file. Two bytes each, in chunks that are allocated
// when something in them is counted: a full window of kDefaultWindow clusters takes 64 MiB. A
// file with more clusters is counted window by window. Owned and used by one check.
class RefcountMap {
 public:
  static constexpr uint64_t kDefaultWindow = uint64_t{1} << 25;

  // What refers to a cluster. Data may be shared with data, and L2 tables with L2 tables; what is
  // for one use only must not be shared at all.
  enum class Use : uint16_t { kData = 1 << 13, kL2Table = 1 << 14, kSingle = 1 << 15 };

  RefcountMap() = default;
  RefcountMap(const RefcountMap&) = delete;
  RefcountMap& operator=(const RefcountMap&) = delete;

  // Forgets everything; counts clusters in [first, first + count) from now on.
  void Reset(uint64_t first, uint64_t count);
  uint64_t first() const { return first_; }
  uint64_t end() const { return first_ + count_; }
  bool Holds(uint64_t cluster) const { return cluster - first_ < count_; }

  // REQUIRES, of all these: Holds(cluster). Counts stop at the largest 64-bit number.
  void Add(uint64_t cluster, uint64_t references, Use use);
  uint64_t Count(uint64_t cluster) const;
  // Quick; true only if all counts in [first, first + count) are 0. REQUIRES: count > 0.
  bool NothingIn(uint64_t first, uint64_t count) const;
  // The count is this from now on; its uses stay.
  void SetCount(uint64_t cluster, uint64_t count);
  // True if uses that exclude each other refer to the cluster.
  bool Overlaps(uint64_t cluster) const;
  bool UsedAs(uint64_t cluster, Use use) const;

 private:
  static constexpr uint16_t kCountMask = (1 << 13) - 1;  // kCountMask itself: see large_
  static constexpr std::size_t kChunkBits = 15;
  using Chunk = std::array<uint16_t, std::size_t{1} << kChunkBits>;

  const uint16_t* Find(uint64_t cluster) const;
  uint16_t& Make(uint64_t cluster);
  void Store(uint16_t& counter, uint64_t cluster, uint64_t count);

  uint64_t first_ = 0;
  uint64_t count_ = 0;
  std::vector<std::unique_ptr<Chunk>> chunks_;
  // Counts that do not fit 13 bits; few, since each takes thousands of references.
  std::unordered_map<uint64_t, uint64_t> large_;
};

}  // namespace gabion::qcow2
