// Arithmetic of one qcow2 image: what follows from its header, precomputed.
#pragma once

#include <algorithm>
#include <cstdint>

#include "engine/base/align.h"
#include "engine/base/units.h"
#include "engine/formats/qcow2/header.h"
#include "engine/formats/qcow2/layout.h"

namespace gabion::qcow2 {

// A plain value. Indexes of clusters are counted from the start of the disk ("guest") or of the
// file ("host").
struct Geometry {
  explicit Geometry(const Header& header)
      : cluster_bits(header.cluster_bits),
        refcount_order(header.refcount_order),
        version(header.version),
        extended(header.extended_l2()),
        compression(header.compression) {}

  uint32_t cluster_bits;
  uint32_t refcount_order;
  uint32_t version;
  bool extended;  // L2 entries have 16 bytes and describe 32 subclusters
  Compression compression;

  uint64_t cluster_size() const { return uint64_t{1} << cluster_bits; }
  uint64_t InCluster(uint64_t offset) const { return offset & (cluster_size() - 1); }
  uint64_t ClusterOf(uint64_t offset) const { return offset >> cluster_bits; }
  uint64_t ClusterStart(uint64_t offset) const { return offset & ~(cluster_size() - 1); }
  uint64_t Clusters(uint64_t bytes) const {
    return (bytes >> cluster_bits) + (InCluster(bytes) != 0 ? 1 : 0);
  }

  uint32_t l2_entry_bits() const { return extended ? 4 : 3; }          // log2 of an entry's bytes
  uint32_t l2_bits() const { return cluster_bits - l2_entry_bits(); }  // log2 of a table's entries
  uint64_t l2_entries() const { return uint64_t{1} << l2_bits(); }
  // Bytes of the disk that one L2 table describes.
  uint64_t l2_coverage() const { return uint64_t{1} << (cluster_bits + l2_bits()); }
  uint64_t L1Entries(uint64_t disk_bytes) const {
    const uint32_t bits = cluster_bits + l2_bits();
    return (disk_bytes >> bits) + ((disk_bytes & (l2_coverage() - 1)) != 0 ? 1 : 0);
  }

  // The smallest unit that is allocated on its own: a subcluster, or else a cluster.
  uint64_t subcluster_size() const {
    return extended ? cluster_size() / kSubclusters : cluster_size();
  }

  uint32_t refcount_bits() const { return 1u << refcount_order; }
  // log2 of the refcounts in one refcount block, which has one cluster.
  uint32_t refcount_block_bits() const { return cluster_bits + 3 - refcount_order; }
  uint64_t max_refcount() const {
    return refcount_order == 6 ? ~uint64_t{0} : (uint64_t{1} << refcount_bits()) - 1;
  }

  // A compressed entry: where its bytes start, and how many at most they are.
  uint32_t compressed_size_shift() const { return 62 - (cluster_bits - 8); }
  uint64_t CompressedOffset(uint64_t entry) const {
    return entry & ((uint64_t{1} << compressed_size_shift()) - 1);
  }
  // The end of the last 512-byte sector that the entry claims, minus its offset.
  uint64_t CompressedBytes(uint64_t entry) const {
    const uint64_t more = (entry & ~(kCopied | kCompressed)) >> compressed_size_shift();
    return (more + 1) * 512 - (CompressedOffset(entry) & 511);
  }
};

// The refcount at `index` of a block of refcounts of 1 << `order` bits; widths below a byte are
// packed from the least significant bits up.
uint64_t LoadRefcount(const std::byte* block, uint64_t index, uint32_t order);
// REQUIRES: `value` fits the width.
void StoreRefcount(std::byte* block, uint64_t index, uint32_t order, uint64_t value);

}  // namespace gabion::qcow2
