#include "engine/block/node.h"

#include <gtest/gtest.h>

#include <vector>

#include "engine/block/aligned_node.h"
#include "engine/block/filter_node.h"
#include "engine/runtime/ready_queue.h"
#include "tests/support/memory_node.h"
#include "tests/support/random_source.h"

namespace gabion::block {
namespace {

using test::MemoryNode;
using test::MemoryNodeOptions;
using test::NodeCall;

class Forwarder final : public FilterNode {
 public:
  explicit Forwarder(Node& child) : FilterNode(child) {}
};

// Implements only what a node must.
class FixedNode final : public Node {
 public:
  FixedNode() : Node(Limits{.size = ByteCount{512}}) {}

 private:
  Task<absl::Status> DoRead(ByteRange, MutableBytes) override { return absl::OkStatus(); }
  Task<absl::Status> DoWrite(ByteRange, Bytes, WriteOptions) override { return absl::OkStatus(); }
  Task<absl::Status> DoZero(ByteRange, ZeroOptions) override { return absl::OkStatus(); }
  Task<absl::Status> DoDiscard(ByteRange) override { return absl::OkStatus(); }
  Task<absl::Status> DoFlush() override { return absl::OkStatus(); }
  Task<absl::Status> DoCache(ByteRange) override { return absl::OkStatus(); }
  Task<absl::StatusOr<ExtentList>> DoBlockStatus(ByteRange range, std::size_t) override {
    ExtentList list{Extent{.range = range}};
    return absl::StatusOr<ExtentList>(list);
  }
  Task<absl::Status> DoClose() override { return absl::OkStatus(); }
};

TEST(NodeTest, EmptyRangesDoNothing) {
  MemoryNode node({.size = 4096, .alignment = 512});
  EXPECT_TRUE(node.Read(Range(100, 0), {}).Take().ok());
  EXPECT_TRUE(node.Write(Range(100, 0), {}, {.durable = true}).Take().ok());
  EXPECT_TRUE(node.Zero(Range(4096, 0), {}).Take().ok());
  EXPECT_TRUE(node.Discard(Range(0, 0)).Take().ok());
  EXPECT_TRUE(node.Cache(Range(0, 0)).Take().ok());
  EXPECT_TRUE(node.calls().empty());
}

TEST(NodeTest, TheEndOfTheDiskCountsAsAligned) {
  MemoryNode node({.size = 1000, .alignment = 512});
  std::vector<std::byte> bytes(488);
  EXPECT_TRUE(node.Read(Range(512, 488), bytes).Take().ok());
}

// A request that was on its way when the disk grew.
TEST(NodeTest, SoDoesWhereItOnceEnded) {
  MemoryNode node({.size = 1000, .alignment = 512});
  Forwarder filter(node);
  ASSERT_TRUE(filter.Resize(ByteCount{4096}).Take().ok());
  std::vector<std::byte> bytes(488);
  EXPECT_TRUE(filter.Read(Range(512, 488), bytes).Take().ok());
  EXPECT_DEATH((void)filter.Read(Range(512, 400), MutableBytes(bytes).first(400)),
               "IsAlignedWithin");
}

TEST(NodeTest, CannotChangeItsSizeUnlessItSaysHow) {
  FixedNode node;
  EXPECT_EQ(node.Resize(ByteCount{1024}).Take().code(), absl::StatusCode::kUnimplemented);
}

TEST(NodeDeathTest, BrokenContractsAreBugs) {
  MemoryNode node({.size = 4096, .alignment = 512, .memory_alignment = 512});
  alignas(512) std::byte buffer[1024] = {};
  const MutableBytes whole(buffer, 512);
  const MutableBytes skewed(buffer + 8, 512);
  EXPECT_DEATH((void)node.Read(Range(4096, 512), whole), "FitsWithin");
  EXPECT_DEATH((void)node.Read(Range(~uint64_t{0} - 511, 512), whole), "FitsWithin");
  EXPECT_DEATH((void)node.Read(Range(256, 512), whole), "IsAlignedWithin");
  EXPECT_DEATH((void)node.Read(Range(0, 1024), whole), "size");
  EXPECT_DEATH((void)node.Read(Range(0, 512), skewed), "memory_alignment");
  MemoryNode read_only({.size = 4096, .writable = false});
  EXPECT_DEATH((void)read_only.Write(Range(0, 512), whole, {}), "writable");
}

TEST(FilterNodeTest, MirrorsItsChild) {
  MemoryNode child({.size = 5000, .alignment = 512, .preferred = 65536, .layers = 3});
  Forwarder filter(child);
  EXPECT_EQ(filter.limits().size, ByteCount{5000});
  EXPECT_EQ(filter.limits().alignment, ByteCount{512});
  EXPECT_EQ(filter.limits().alignment_from, "memory");
  EXPECT_EQ(filter.limits().layers, 3u);
  EXPECT_TRUE(filter.limits().writable);
}

TEST(FilterNodeTest, ForwardsEveryCallOnce) {
  MemoryNode child({.size = 4096});
  Forwarder filter(child);
  std::vector<std::byte> bytes(16, std::byte{7});
  EXPECT_TRUE(filter.Write(Range(8, 16), bytes, {.durable = true}).Take().ok());
  EXPECT_TRUE(filter.Read(Range(8, 16), bytes).Take().ok());
  EXPECT_TRUE(filter.Zero(Range(0, 8), {}).Take().ok());
  EXPECT_TRUE(filter.Discard(Range(100, 8)).Take().ok());
  EXPECT_TRUE(filter.Cache(Range(100, 8)).Take().ok());
  EXPECT_TRUE(filter.Flush().Take().ok());
  const absl::StatusOr<ExtentList> direct = child.BlockStatus(Range(0, 4096), 10).Take();
  const absl::StatusOr<ExtentList> above = filter.BlockStatus(Range(0, 4096), 10).Take();
  EXPECT_EQ(*above, *direct);
  const NodeCall expected[] = {NodeCall::kWrite,       NodeCall::kRead,       NodeCall::kZero,
                               NodeCall::kDiscard,     NodeCall::kCache,      NodeCall::kFlush,
                               NodeCall::kBlockStatus, NodeCall::kBlockStatus};
  ASSERT_EQ(child.calls().size(), std::size(expected));
  for (std::size_t i = 0; i < std::size(expected); ++i) {
    EXPECT_EQ(child.calls()[i].call, expected[i]) << i;
  }
  EXPECT_TRUE(child.calls()[0].durable);
}

TEST(FilterNodeTest, GrowsWithItsChild) {
  MemoryNode child({.size = 4096});
  Forwarder filter(child);
  EXPECT_TRUE(filter.Resize(ByteCount{8192}).Take().ok());
  EXPECT_EQ(filter.limits().size, ByteCount{8192});
  EXPECT_TRUE(child.Resize(ByteCount{9000}).Take().ok());
  filter.Refresh();
  EXPECT_EQ(filter.limits().size, ByteCount{9000});
}

TEST(FilterNodeTest, ClosingFlushesAndLeavesTheChildOpen) {
  MemoryNode child({.size = 4096});
  Forwarder filter(child);
  EXPECT_TRUE(filter.Close().Take().ok());
  EXPECT_EQ(child.CountCalls(NodeCall::kFlush), 1u);
  EXPECT_EQ(child.CountCalls(NodeCall::kClose), 0u);
}

// All of the disk's status, asked for in steps as small as `step` extents.
ExtentList Walk(Node& node, std::size_t step) {
  ExtentList all;
  uint64_t at = 0;
  const uint64_t size = node.limits().size.value;
  while (at < size) {
    const absl::StatusOr<ExtentList> part = node.BlockStatus(Range(at, size - at), step).Take();
    EXPECT_TRUE(part.ok()) << part.status();
    if (!part.ok() || part->empty()) break;
    for (const Extent& extent : *part) AppendExtent(all, extent);
    at = part->back().range.end().value;
  }
  return all;
}

// P7: what does not change data changes nothing that anybody learns about the data.
TEST(TransparencyTest, ForwardingNodesInAnyNumberAndPlaceLeaveEveryAtomAlone) {
  test::RandomSource random;
  runtime::ReadyQueue ready;
  for (int round = 0; round < 300; ++round) {
    const uint64_t size = random.Between(1, 20000);
    const uint64_t alignment = random.PowerOfTwo(1, 4096);
    MemoryNode disk({.size = size, .alignment = alignment, .layers = 3});
    for (int i = 0; i < 12; ++i) {
      const auto layer = static_cast<uint32_t>(random.Between(1, 3));
      disk.Fill(random.RangeWithin(size), std::byte{5}, layer);
    }
    const ExtentList plain = Walk(disk, 64);
    Forwarder once(disk);
    Forwarder twice(static_cast<Node&>(once));
    AlignedNode aligned(twice, ready);
    Forwarder above(aligned);
    for (Node* node : {static_cast<Node*>(&once), static_cast<Node*>(&twice),
                       static_cast<Node*>(&aligned), static_cast<Node*>(&above)}) {
      ASSERT_EQ(Walk(*node, random.Between(1, 5)), plain) << "round " << round;
      EXPECT_EQ(node->limits().layers, 3u);
    }
  }
}

}  // namespace
}  // namespace gabion::block
