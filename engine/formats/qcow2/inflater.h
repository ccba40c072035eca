// Reading compressed clusters.
#pragma once

#include <cstdint>
#include <list>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "engine/base/units.h"
#include "engine/formats/qcow2/tables.h"
#include "engine/runtime/event.h"
#include "engine/runtime/task.h"
#include "engine/runtime/worker_pool.h"

namespace gabion::qcow2 {

// Keeps the last clusters that it inflated: neighbours are often read soon. Entries are never
// written again, so that what was inflated stays right. Owned by a node, used on its shard.
class Inflater {
 public:
  // Inflates on `workers`, or on the shard if there are none.
  Inflater(Tables& tables, runtime::Workers* workers);

  // Reads dst.size() bytes from `in_cluster` on of the cluster with the compressed L2 entry
  // `entry`. kDataLoss: the compressed bytes make no sense.
  Task<absl::Status> Read(uint64_t entry, uint64_t in_cluster, MutableBytes dst);

 private:
  struct Kept {
    uint64_t entry;
    std::vector<std::byte> cluster;
  };

  bool Copy(uint64_t entry, uint64_t in_cluster, MutableBytes dst);
  Task<absl::Status> Load(uint64_t entry);

  Tables& tables_;
  runtime::Workers* const workers_;
  const std::size_t max_kept_;
  std::list<Kept> kept_;  // the last used one first
  absl::flat_hash_set<uint64_t> loading_;
  runtime::Signal loaded_;
};

}  // namespace gabion::qcow2
