// Makes a new refcount table with new blocks at the end of a file whose own are unusable.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "engine/formats/qcow2/check_context.h"
#include "engine/formats/qcow2/refcount_map.h"
#include "engine/formats/qcow2/references.h"
#include "engine/runtime/task.h"

namespace gabion::qcow2 {

// The order of writes, so that a crash leaves the image as it was or with the new table:
// (1) The new blocks and table go behind the end of the file, where nothing points.
// (2) They are synced.
// (3) One write of the header's sector makes them the image's; the old ones, which the new
//     refcounts do not contain, are free from then on.
// (4) That is synced before anything relies on it.
//
// Owned by one repair; for one use.
class RefcountRebuild {
 public:
  // `past_end`: the lowest offset of a reference that passes the end of the file. Such references
  // must not come to lie within it: what they lead to would be zeros, and no longer an error.
  RefcountRebuild(CheckContext& context, References& references, RefcountMap& map,
                  uint64_t past_end)
      : context_(context), references_(references), map_(map), past_end_(past_end) {}

  // Afterwards the context has the new header and length. With nothing changed: kResourceExhausted
  // if the new table would be too large; kFailedPrecondition if the file would grow to `past_end`.
  Task<absl::Status> Run();

 private:
  Task<absl::Status> CountWindow(uint64_t window);
  Task<absl::Status> FindBlocks();
  absl::Status PlanPlaces();
  Task<absl::Status> WriteBlocks();
  Task<absl::Status> WriteBlock(uint64_t block, uint64_t place);
  Task<absl::Status> CountOwnClusters();
  Task<absl::Status> WriteTable();
  Task<absl::Status> SwitchHeader();

  uint64_t windows() const;
  uint64_t new_clusters() const { return blocks_ + table_clusters_; }
  uint64_t table_offset() const {
    return (first_cluster_ + blocks_) << context_.geometry.cluster_bits;
  }
  // Where the block with these refcounts goes. REQUIRES: it is needed.
  uint64_t PlaceOf(uint64_t block) const;

  CheckContext& context_;
  References& references_;
  RefcountMap& map_;
  const uint64_t past_end_;
  uint64_t counted_window_ = ~uint64_t{0};
  std::vector<bool> needed_;      // by number of the block
  std::vector<uint64_t> places_;  // by number of the block; 0: not needed
  uint64_t first_cluster_ = 0;    // of the new blocks; the table follows them
  uint64_t blocks_ = 0;
  uint64_t table_clusters_ = 0;
};

}  // namespace gabion::qcow2
