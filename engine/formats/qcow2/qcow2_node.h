// A qcow2 image, alone or on top of its backing image.
//
// What keeps the file sound at every instant, without a journal; cited where it is kept:
//
// (W1) A cluster's refcount is durable before anything in the file refers to the cluster. After a
//      crash there may be leaks, and nothing else.
// (W2) Data, and what copy-on-write added to it, is durable before an L2 entry in the file refers
// to
//      it; an L2 table before the L1 entry. So nobody ever reads what a cluster held before.
// (W3) A refcount block is durable before the refcount table in the file refers to it; a table
//      before the header.
// (W4) A cluster is given up only when what referred to it is gone from the file, durably.
// (W5) A cluster is reused only when every request that may have seen the old reference is done and
//      the hole for it has been punched: both come before its refcount is decreased.
// (W6) The header changes by one write of one sector.
// (W7) Tables are written as they were at one moment: a change that comes while they are being
//      written waits for the next time.
// (W8) Nothing is written to a cluster that holds metadata, but that metadata.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/base/units.h"
#include "engine/block/node.h"
#include "engine/formats/qcow2/header.h"
#include "engine/formats/qcow2/slice_cache.h"
#include "engine/io/file.h"
#include "engine/runtime/ready_queue.h"
#include "engine/runtime/task.h"
#include "engine/runtime/worker_pool.h"

namespace gabion::qcow2 {

struct Qcow2Options {
  std::string name;                     // of the image, for people
  block::Node* backing = nullptr;       // the image below; outlives the node. Null: zeros
  runtime::Workers* workers = nullptr;  // inflate there; null: on the shard
  ByteCount cache_bytes{32 * kMiB};     // of tables, besides what is to be written
  CacheBudget* cache_budget = nullptr;  // shared with other images; null: none
};

// Owned by a graph, used on its shard; as Node says. Writes are refused (kFailedPrecondition) until
// BeginWriting() has succeeded, and again (kDataLoss, IMAGE_CORRUPT) when the image turns out to
// contradict itself. Size in bytes, exact. Sizes of requests need no alignment.
//
// Zero() and Discard() change tables where they can; partial clusters are zeroed by writing, and
// kept by Discard(). Flush() costs one sync, two if tables have changed, three with a new
// refcount block among them.
class Qcow2Node : public block::Node {
 public:
  // Makes sure that the image may be written, and repairs the refcounts of one that was not closed.
  // Call before the first change; later calls do nothing. Nothing is written on error but such a
  // repair. kFailedPrecondition: the image is damaged, and may be read only.
  virtual Task<absl::Status> BeginWriting() = 0;
  // Brings everything into the file, so that others may write to it. Call when no request is in
  // flight; BeginWriting() comes again before the next change.
  virtual Task<absl::Status> EndWriting() = 0;

  virtual const Header& header() const = 0;
  // What was let pass, for people.
  virtual std::vector<std::string> warnings() const = 0;
  // Not OK if the image has turned out to be damaged.
  virtual absl::Status health() const = 0;

 protected:
  using Node::Node;
};

// Reads and checks the header of the image in `file`.
Task<absl::StatusOr<ParsedHeader>> ReadHeader(io::File& file, Access access);

// Opens the image in `file`, which the node then owns. kFailedPrecondition or kUnimplemented: see
// ParseHeader(); also if the image has a backing file and there is no `options.backing`, or the
// other way round. Writes nothing. REQUIRES: file->alignment() is 1.
Task<absl::StatusOr<std::unique_ptr<Qcow2Node>>> OpenQcow2(std::unique_ptr<io::File> file,
                                                           Qcow2Options options,
                                                           runtime::ReadyQueue& ready);

}  // namespace gabion::qcow2
