// Holds what is read from a disk against a hash tree.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "engine/base/units.h"
#include "engine/block/node.h"
#include "engine/filters/filter.h"
#include "engine/filters/verifying/verify_options.h"
#include "engine/filters/verity/hash_tree.h"
#include "engine/runtime/task.h"

namespace gabion::runtime {
class Workers;
}

namespace gabion::filters {

// The tree in a hash image of dm-verity: see verity/hash_tree.h, also for the errors. Those of the
// image pass. REQUIRES: its alignment is 1, in memory, too.
Task<absl::StatusOr<verity::HashTree>> ReadHashTree(block::Node& hashes);

// The disk that `tree` is of: its size is the tree's, or what the child has of that; read-only.
// Everything that is read is verified in whole data blocks; where a request has parts of them, they
// are read as a whole. Their digests come from the tree in `hashes`, of which each block is
// verified by the level above, and the top one by `root_digest`; blocks that were used last, up to
// 4 MiB, are kept. More than a few tens of KiB at a time are hashed by `workers`, several pieces of
// a request at once.
//
// A digest that does not fit is kDataLoss and names the data block, or the block of the tree. With
// kReport the read gives the child's bytes all the same, also where the tree cannot be read, or
// does not fit its root.
//
// The root digest vouches for all data and hash blocks, and for how they are hashed; not for their
// number: who can write to `hashes` can make the disk shorter, or, by a tree of fewer levels, show
// hash blocks as its data. Who knows the size of the disk compares it with tree.data_size().
//
// Status: the child's; what is called a hole has not been verified. Limits: the child's, besides
// size and writability. Resize() is kPermissionDenied. Statistics, of whole data blocks:
// compared_bytes; mismatches, blocks of the tree included; reference_failures.
//
// kInvalidArgument if the child is smaller than the tree's disk, or `root_digest` is no digest of
// the tree's algorithm. REQUIRES: the alignment of both nodes is 1; the child has no padding;
// `tree` is what ReadHashTree() made of `hashes`. `hashes` and `workers` outlive the filter, and
// nobody writes to `hashes`.
absl::StatusOr<std::unique_ptr<LiveFilter<VerifyOptions>>> NewVerifyTree(
    block::Node& child, Environment environment, block::Node& hashes, verity::HashTree tree,
    Bytes root_digest, runtime::Workers& workers, const VerifyOptions& options);

}  // namespace gabion::filters
