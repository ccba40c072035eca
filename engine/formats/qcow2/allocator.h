// Which clusters of the file are in use: refcounts, and finding free ones.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/block/range_lock.h"
#include "engine/formats/qcow2/tables.h"
#include "engine/runtime/task.h"

namespace gabion::qcow2 {

// Finds the first free clusters of the file, so that it stays compact. Changes refcounts in memory
// only; the commit brings them into the file before anything there refers to the clusters
// (invariant W1). Owned by a node, used on its shard.
class Allocator {
 public:
  struct Run {
    uint64_t offset = 0;    // in the file
    uint64_t clusters = 0;  // at least one
    bool fresh = false;     // was never written: reads as zeros
  };

  // `commit_lock` is held while the file's refcount table is replaced.
  Allocator(Tables& tables, block::RangeLock& commit_lock);

  // Up to `clusters` consecutive free clusters, which have refcount 1 from now on. What gets them
  // must be told to `tables.metadata` before the caller suspends, if it is metadata.
  // kResourceExhausted: the format has no room for more; kDataLoss: the image contradicts itself.
  Task<absl::StatusOr<Run>> Allocate(uint64_t clusters);

  // `clusters` clusters that lie together, behind everything that is in use; otherwise as
  // Allocate().
  Task<absl::StatusOr<uint64_t>> AllocateTogether(uint64_t clusters);

  // One reference less for each cluster in the list, which may name one several times.
  Task<absl::Status> Release(const std::vector<uint64_t>& clusters);

  // References to a cluster, counted from the start of the file; 0: it is free.
  Task<absl::StatusOr<uint64_t>> Refcount(uint64_t cluster);

 private:
  struct Place {
    SliceCache::Slice* slice;  // null: the cluster has no refcount block
    uint64_t index;            // in the slice
  };

  uint64_t RefcountsInSlice() const;
  uint64_t BlockOf(uint64_t cluster) const {
    return cluster >> tables_.geometry.refcount_block_bits();
  }
  bool HasBlock(uint64_t cluster) const;
  // REQUIRES: HasBlock(cluster).
  Task<absl::StatusOr<Place>> Find(uint64_t cluster);
  absl::StatusOr<Run> Take(Place place, uint64_t clusters);
  // Makes the next free cluster the refcount block that describes it.
  Task<absl::Status> AddBlock();
  // Makes `cluster` the block with the number `block`; its own refcount is not counted yet.
  void SetBlock(uint64_t block, uint64_t cluster);
  uint64_t MissingBlocks(uint64_t first, uint64_t clusters) const;
  Task<absl::Status> CountRange(uint64_t first, uint64_t clusters);
  Task<absl::Status> GrowTable();
  Task<absl::Status> ReplaceTable(uint64_t first, uint64_t blocks, uint64_t table_clusters);
  Task<absl::Status> WriteTable(uint64_t offset);
  Task<absl::Status> ReleaseLocked(const std::vector<uint64_t>& clusters);
  Task<absl::Status> Overlap(uint64_t cluster);
  // Counts one reference to `cluster` in a block that is in the cache as a whole.
  void CountOne(uint64_t cluster);
  bool IsFresh(uint64_t cluster) const {
    return cluster << tables_.geometry.cluster_bits >= tables_.end;
  }

  Tables& tables_;
  block::RangeLock& commit_lock_;
  block::RangeLock lock_;
  uint64_t next_ = 0;  // no cluster below is free
};

}  // namespace gabion::qcow2
