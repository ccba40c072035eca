// The image below the one under test.
#pragma once

#include <cstddef>
#include <vector>

#include "engine/block/node.h"
#include "tests/sim/content.h"
#include "tests/sim/sim_world.h"

namespace gabion::sim {

// Read-only: has the content of Model::kBase in some ranges and zeros elsewhere, and holds none of
// it. Every call waits for its turn. Owned by a simulation; used on its thread.
class PatternNode final : public block::Node {
 public:
  // `data`: ascending, without overlaps. `world` outlives the node.
  PatternNode(SimWorld& world, const Content& content, uint64_t size, std::vector<ByteRange> data);

 private:
  Task<absl::Status> DoRead(ByteRange range, MutableBytes dst) override;
  Task<absl::Status> DoWrite(ByteRange range, Bytes src, block::WriteOptions options) override;
  Task<absl::Status> DoZero(ByteRange range, block::ZeroOptions options) override;
  Task<absl::Status> DoDiscard(ByteRange range) override;
  Task<absl::Status> DoFlush() override;
  Task<absl::Status> DoCache(ByteRange range) override;
  Task<absl::StatusOr<block::ExtentList>> DoBlockStatus(ByteRange range,
                                                        std::size_t max_extents) override;
  Task<absl::Status> DoClose() override;

  SimWorld& world_;
  const Content content_;
  const std::vector<ByteRange> data_;
};

}  // namespace gabion::sim
