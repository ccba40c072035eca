#include "engine/block/tail_node.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "engine/runtime/task_set.h"
#include "tests/support/memory_node.h"
#include "tests/support/random_source.h"

namespace gabion::block {
namespace {

using runtime::ReadyQueue;
using test::MemoryNode;
using test::NodeCall;
using test::RandomSource;

constexpr ByteCount kG{512};

std::vector<std::byte> Filled(std::size_t size, uint8_t value) {
  return std::vector<std::byte>(size, std::byte{value});
}

// A disk of 1000 bytes of data, the golden one of the tail rules.
class TailNodeTest : public testing::Test {
 protected:
  TailNodeTest() { child_.Fill(Range(0, 1000), std::byte{1}); }

  absl::Status Write(TailNode& node, ByteRange range, uint8_t value, bool durable = false) {
    const std::vector<std::byte> bytes = Filled(range.length.value, value);
    Task<absl::Status> task = node.Write(range, bytes, {.durable = durable});
    ready_.RunUntilIdle();
    return task.Take();
  }
  absl::Status Zero(TailNode& node, ByteRange range, bool durable = false) {
    Task<absl::Status> task = node.Zero(range, {.durable = durable});
    ready_.RunUntilIdle();
    return task.Take();
  }
  std::vector<std::byte> Read(TailNode& node, ByteRange range) {
    std::vector<std::byte> bytes = Filled(range.length.value, 0xee);
    Task<absl::Status> task = node.Read(range, bytes);
    ready_.RunUntilIdle();
    EXPECT_TRUE(task.Take().ok());
    return bytes;
  }

  ReadyQueue ready_;
  MemoryNode child_{{.size = 1000}};
};

TEST_F(TailNodeTest, SizesAndPaddingOfTheModes) {
  TailNode zero(child_, TailMode::kPadZero, kG, ready_);
  EXPECT_EQ(zero.limits().size, ByteCount{1024});
  EXPECT_EQ(zero.limits().padding, ByteCount{24});
  EXPECT_EQ(zero.limits().content_size(), ByteCount{1000});
  TailNode grow(child_, TailMode::kPadGrow, ByteCount{4096}, ready_);
  EXPECT_EQ(grow.limits().size, ByteCount{4096});
  EXPECT_EQ(grow.limits().content_size(), ByteCount{1000});
  TailNode truncate(child_, TailMode::kTruncate, kG, ready_);
  EXPECT_EQ(truncate.limits().size, ByteCount{512});
  EXPECT_EQ(truncate.limits().padding, ByteCount{0});
}

TEST_F(TailNodeTest, ADiskThatFitsHasNoPadding) {
  MemoryNode child({.size = 1024});
  const TailMode modes[] = {TailMode::kPadZero, TailMode::kPadGrow, TailMode::kTruncate};
  for (const TailMode mode : modes) {
    TailNode node(child, mode, kG, ready_);
    EXPECT_EQ(node.limits().size, ByteCount{1024});
    EXPECT_EQ(node.limits().padding, ByteCount{0});
  }
}

TEST_F(TailNodeTest, PaddingReadsAsZeros) {
  TailNode node(child_, TailMode::kPadZero, kG, ready_);
  std::vector<std::byte> expected = Filled(1000, 1);
  expected.resize(1024);
  EXPECT_EQ(Read(node, Range(0, 1024)), expected);
  EXPECT_EQ(Read(node, Range(1010, 14)), Filled(14, 0));
}

TEST_F(TailNodeTest, ZerosInThePaddingAreDropped) {
  TailNode node(child_, TailMode::kPadZero, kG, ready_);
  EXPECT_TRUE(Write(node, Range(1000, 24), 0).ok());
  EXPECT_TRUE(Zero(node, Range(1000, 24)).ok());
  EXPECT_TRUE(child_.calls().empty());
  EXPECT_EQ(child_.limits().size, ByteCount{1000});
}

TEST_F(TailNodeTest, DurableZerosInThePaddingFlush) {
  TailNode node(child_, TailMode::kPadZero, kG, ready_);
  EXPECT_TRUE(Write(node, Range(1000, 24), 0, true).ok());
  EXPECT_TRUE(Zero(node, Range(1000, 24), true).ok());
  EXPECT_EQ(child_.CountCalls(NodeCall::kFlush), 2u);
}

TEST_F(TailNodeTest, DataInThePaddingFailsTheWholeWrite) {
  TailNode node(child_, TailMode::kPadZero, kG, ready_);
  const ByteRange ranges[] = {Range(1000, 24), Range(960, 64), Range(1023, 1)};
  for (const ByteRange& range : ranges) {
    EXPECT_EQ(Write(node, range, 0x78).code(), absl::StatusCode::kResourceExhausted);
  }
  EXPECT_TRUE(child_.calls().empty());
  EXPECT_EQ(child_.content(), Filled(1000, 1));
}

TEST_F(TailNodeTest, AnAlignedRewriteOfTheLastUnitWorks) {
  TailNode node(child_, TailMode::kPadZero, kG, ready_);
  std::vector<std::byte> unit = Filled(488, 5);
  unit.resize(512);
  EXPECT_TRUE(node.Write(Range(512, 512), unit, {.durable = true}).Take().ok());
  ASSERT_EQ(child_.calls().size(), 1u);
  EXPECT_EQ(child_.calls()[0].range, Range(512, 488));
  EXPECT_TRUE(child_.calls()[0].durable);
  EXPECT_EQ(Read(node, Range(512, 512)), unit);
}

TEST_F(TailNodeTest, ZeroDiscardAndCacheAreClipped) {
  TailNode node(child_, TailMode::kPadZero, kG, ready_);
  EXPECT_TRUE(Zero(node, Range(512, 512)).ok());
  EXPECT_TRUE(node.Discard(Range(512, 512)).Take().ok());
  EXPECT_TRUE(node.Cache(Range(512, 512)).Take().ok());
  EXPECT_TRUE(node.Discard(Range(1000, 24)).Take().ok());
  EXPECT_TRUE(node.Cache(Range(1000, 24)).Take().ok());
  ASSERT_EQ(child_.calls().size(), 3u);
  for (const test::CallRecord& record : child_.calls()) EXPECT_EQ(record.range, Range(512, 488));
}

TEST_F(TailNodeTest, StatusOfTheContentIsTheChildsAndPaddingIsInNoLayer) {
  TailNode node(child_, TailMode::kPadZero, kG, ready_);
  const absl::StatusOr<ExtentList> content = node.BlockStatus(Range(0, 1024), 8).Take();
  EXPECT_EQ(*content, *child_.BlockStatus(Range(0, 1000), 8).Take());
  const absl::StatusOr<ExtentList> padding = node.BlockStatus(Range(1000, 24), 8).Take();
  const ExtentList expected{
      {.range = Range(1000, 24), .kind = ExtentKind::kUnallocated, .layer = 0}};
  EXPECT_EQ(*padding, expected);
}

TEST_F(TailNodeTest, TruncateForwardsAndHidesTheRest) {
  TailNode node(child_, TailMode::kTruncate, kG, ready_);
  EXPECT_TRUE(Write(node, Range(0, 512), 7).ok());
  EXPECT_EQ(Read(node, Range(0, 512)), Filled(512, 7));
  EXPECT_EQ(child_.content()[512], std::byte{1});
  EXPECT_EQ(node.BlockStatus(Range(0, 512), 8).Take()->back().range.end(), ByteOffset{512});
}

TEST_F(TailNodeTest, TheFirstDataInThePaddingGrowsTheImageOnce) {
  TailNode node(child_, TailMode::kPadGrow, kG, ready_);
  EXPECT_TRUE(Write(node, Range(1000, 24), 0).ok());
  EXPECT_TRUE(Zero(node, Range(512, 512)).ok());
  EXPECT_EQ(child_.limits().size, ByteCount{1000}) << "zeros do not make it longer";
  EXPECT_TRUE(Write(node, Range(1010, 4), 9).ok());
  EXPECT_EQ(child_.limits().size, ByteCount{1024});
  EXPECT_EQ(node.limits().padding, ByteCount{0});
  EXPECT_EQ(child_.content()[1010], std::byte{9});
  EXPECT_EQ(child_.content()[1023], std::byte{0});
  EXPECT_TRUE(Write(node, Range(1020, 4), 9).ok());
  EXPECT_EQ(child_.CountCalls(NodeCall::kResize), 1u);
}

TEST_F(TailNodeTest, AWriteThatCannotGrowTheImageWritesNothing) {
  MemoryNode fixed({.size = 1000, .resizable = false});
  TailNode node(fixed, TailMode::kPadGrow, kG, ready_);
  EXPECT_EQ(Write(node, Range(960, 64), 9).code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(fixed.CountCalls(NodeCall::kWrite), 0u);
  EXPECT_TRUE(Write(node, Range(960, 40), 9).ok()) << "the node still works";
}

TEST_F(TailNodeTest, ResizeSetsTheSizeOfTheImage) {
  TailNode node(child_, TailMode::kPadZero, kG, ready_);
  EXPECT_TRUE(node.Resize(ByteCount{1030}).Take().ok());
  EXPECT_EQ(child_.limits().size, ByteCount{1030});
  EXPECT_EQ(node.limits().size, ByteCount{1536});
  EXPECT_EQ(node.limits().content_size(), ByteCount{1030});
}

struct GrowRequest {
  ByteRange range;
  std::vector<std::byte> bytes;
};

Task<void> RunWrite(TailNode& node, GrowRequest& request) {
  const absl::Status status = co_await node.Write(request.range, request.bytes, {});
  EXPECT_TRUE(status.ok()) << status;
}

Task<void> RunRead(TailNode& node, GrowRequest& request) {
  const std::vector<std::byte> expected = request.bytes;
  const absl::Status status = co_await node.Read(request.range, request.bytes);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(request.bytes, expected);
}

// The memory node checks that it is resized alone.
TEST(TailNodePropertyTest, GrowingUnderLoadLosesNothing) {
  RandomSource random;
  for (int round = 0; round < 300; ++round) {
    ReadyQueue ready;
    ready.SetChooser(&RandomSource::Choose, &random);
    const uint64_t size = random.Between(1, 511) + 512 * random.Below(4);
    MemoryNode child({.size = size});
    child.SetDeferred(ready, random);
    TailNode node(child, TailMode::kPadGrow, kG, ready);
    const uint64_t export_size = node.limits().size.value;
    std::vector<std::byte> model(export_size);
    std::vector<std::unique_ptr<GrowRequest>> requests;
    runtime::TaskSet tasks(ready);
    // Disjoint pieces in random order of start.
    std::vector<ByteRange> pieces;
    for (uint64_t at = 0; at < export_size;) {
      const uint64_t length = std::min(export_size - at, random.Between(1, 200));
      pieces.push_back(Range(at, length));
      at += length;
    }
    while (!pieces.empty()) {
      std::swap(pieces[random.Below(pieces.size())], pieces.back());
      requests.push_back(std::make_unique<GrowRequest>());
      GrowRequest& request = *requests.back();
      request.range = pieces.back();
      request.bytes.resize(request.range.length.value);
      pieces.pop_back();
      if (random.OneIn(4)) {
        tasks.Add(RunRead(node, request));
      } else {
        if (!random.OneIn(4)) random.FillNonZero(request.bytes);
        std::copy(request.bytes.begin(), request.bytes.end(),
                  model.begin() + request.range.offset.value);
        tasks.Add(RunWrite(node, request));
      }
      if (random.OneIn(3)) ready.RunOnce();
    }
    ready.RunUntilIdle();
    ASSERT_EQ(tasks.running(), 0u);
    const bool has_tail = std::any_of(model.begin() + size, model.end(),
                                      [](std::byte byte) { return byte != std::byte{0}; });
    EXPECT_EQ(child.CountCalls(NodeCall::kResize), has_tail ? 1u : 0u);
    if (!has_tail) model.resize(size);
    EXPECT_EQ(child.content(), model);
  }
}

}  // namespace
}  // namespace gabion::block
