// A disk and its hash image in memory, with the filter above them.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/filters/verify_tree.h"
#include "engine/runtime/worker_pool.h"
#include "tests/engine/filters/filter_stand.h"
#include "tests/engine/filters/verity/hash_image.h"
#include "tests/support/memory_node.h"
#include "tests/support_io/finish.h"

namespace gabion::filters {

// Owned by a test; one thread, and its workers.
class TreeStand {
 public:
  // The disk has `behind` bytes besides `data`, which the tree is of.
  TreeStand(test::HashImage hash_image, Bytes data, uint64_t behind = 0)
      : image(std::move(hash_image)),
        child({.size = data.size() + behind, .layers = 3}),
        hashes({.size = image.bytes.size(), .writable = false}) {
    child.Put(0, data, 2);
    hashes.Put(0, image.bytes);
  }
  TreeStand(const test::HashImageOptions& options, Bytes data, uint64_t behind = 0)
      : TreeStand(test::MakeHashImage(options, data), data, behind) {}

  // Above `below`, with what is in the hash image now.
  absl::StatusOr<std::unique_ptr<LiveFilter<VerifyOptions>>> TryMake(block::Node& below, Bytes root,
                                                                     VerifyOptions options = {}) {
    absl::StatusOr<verity::HashTree> tree = Finish(ReadHashTree(hashes));
    if (!tree.ok()) return tree.status();
    return NewVerifyTree(below, {reactor.ready(), clock, logger, "exports/a, filter 'f'"}, hashes,
                         *std::move(tree), root, workers, options);
  }
  std::unique_ptr<LiveFilter<VerifyOptions>> Make(VerifyOptions options = {}) {
    auto made = TryMake(child, image.root, options);
    EXPECT_TRUE(made.ok()) << made.status();
    return *std::move(made);
  }

  template <typename T>
  T Finish(Task<T> task) {
    return test::Finish(reactor, std::move(task));
  }
  absl::Status Read(block::Node& node, ByteRange range) {
    bytes.assign(range.length.value, std::byte{0xee});
    return Finish(node.Read(range, bytes));
  }
  // What the last Read() gave is what the child has there.
  bool GaveTheChilds(ByteRange range) {
    return test::HasAt(child.content(), range.offset.value, bytes);
  }

  runtime::Reactor reactor{{}};
  runtime::WorkerPool pool{"worker", 2};
  runtime::Workers workers{pool, reactor};
  test::ManualClock clock{reactor.ready()};
  test::StandLogger logger;
  test::HashImage image;
  test::MemoryNode child;
  test::MemoryNode hashes;
  std::vector<std::byte> bytes;  // of the last Read()
};

}  // namespace gabion::filters
