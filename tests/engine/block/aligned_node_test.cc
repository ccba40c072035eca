#include "engine/block/aligned_node.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "engine/base/align.h"
#include "engine/runtime/task_set.h"
#include "tests/support/memory_node.h"
#include "tests/support/random_source.h"

namespace gabion::block {
namespace {

using runtime::ReadyQueue;
using test::CallRecord;
using test::MemoryNode;
using test::MemoryNodeOptions;
using test::NodeCall;
using test::RandomSource;

std::vector<std::byte> Pattern(std::size_t size, uint8_t value) {
  return std::vector<std::byte>(size, std::byte{value});
}

TEST(AlignedNodeTest, TakesAnythingAndPrefersTheUnit) {
  ReadyQueue ready;
  MemoryNode child({.size = 1 << 20, .alignment = 8192, .memory_alignment = 512, .name = "vol"});
  AlignedNode node(child, ready);
  EXPECT_EQ(node.limits().alignment, ByteCount{1});
  EXPECT_EQ(node.limits().alignment_from, "");
  EXPECT_EQ(node.limits().memory_alignment, 1u);
  EXPECT_EQ(node.limits().preferred, ByteCount{8192});
  EXPECT_EQ(node.limits().preferred_from, "vol");
}

TEST(AlignedNodeTest, WholeUnitsGoThroughInOnePiece) {
  ReadyQueue ready;
  MemoryNode child({.size = 4 << 20, .alignment = 4096});
  AlignedNode node(child, ready);
  const std::vector<std::byte> bytes = Pattern(1 << 20, 7);
  EXPECT_TRUE(node.Write(Range(8192, 1 << 20), bytes, {.durable = true}).Take().ok());
  ASSERT_EQ(child.calls().size(), 1u);
  EXPECT_EQ(child.calls()[0].range, Range(8192, 1 << 20));
  EXPECT_TRUE(child.calls()[0].durable);
}

TEST(AlignedNodeTest, TheWholeUnitsOfALongRequestAreOneCall) {
  ReadyQueue ready;
  MemoryNode child({.size = 4 << 20, .alignment = 4096});
  AlignedNode node(child, ready);
  const std::vector<std::byte> bytes = Pattern(1 << 20, 7);
  EXPECT_TRUE(node.Write(Range(100, 1 << 20), bytes, {.durable = true}).Take().ok());
  const uint64_t middle = (1 << 20) - 4096;
  EXPECT_EQ(child.CountCalls(NodeCall::kRead), 2u);
  int direct = 0;
  for (const CallRecord& record : child.calls()) {
    if (record.call != NodeCall::kWrite) continue;
    EXPECT_TRUE(record.durable);
    direct += record.range == Range(4096, middle) ? 1 : 0;
  }
  EXPECT_EQ(direct, 1);
  EXPECT_EQ(child.CountCalls(NodeCall::kWrite), 3u);
}

TEST(AlignedNodeTest, AWriteKeepsTheRestOfItsUnit) {
  ReadyQueue ready;
  MemoryNode child({.size = 8192, .alignment = 4096});
  child.Fill(Range(0, 8192), std::byte{1});
  AlignedNode node(child, ready);
  EXPECT_TRUE(node.Write(Range(4000, 200), Pattern(200, 2), {}).Take().ok());
  for (uint64_t at = 0; at < 8192; ++at) {
    ASSERT_EQ(child.content()[at], std::byte{at >= 4000 && at < 4200 ? uint8_t{2} : uint8_t{1}});
  }
}

TEST(AlignedNodeTest, ReachesTheLastBytesOfADiskOfOddSize) {
  ReadyQueue ready;
  MemoryNode child({.size = 5000, .alignment = 4096});
  AlignedNode node(child, ready);
  EXPECT_TRUE(node.Write(Range(4999, 1), Pattern(1, 9), {}).Take().ok());
  std::vector<std::byte> byte(1);
  EXPECT_TRUE(node.Read(Range(4999, 1), byte).Take().ok());
  EXPECT_EQ(byte[0], std::byte{9});
  EXPECT_EQ(child.CountCalls(NodeCall::kWrite), 1u);
}

TEST(AlignedNodeTest, AWriteToPartOfAUnitDoesNotBringBackWhatADiscardHasTaken) {
  RandomSource random;
  int overlapped = 0;
  for (int round = 0; round < 500; ++round) {
    ReadyQueue ready;
    MemoryNode child({.size = 4096, .alignment = 4096});
    child.Fill(Range(0, 4096), std::byte{1});
    AlignedNode node(child, ready);
    child.SetDeferred(ready, random);
    const std::vector<std::byte> bytes = Pattern(100, 2);
    Task<absl::Status> write = node.Write(Range(200, 100), bytes, {});
    Task<absl::Status> discard = node.Discard(Range(0, 4096));
    while (!discard.done()) ready.RunOnce();
    const std::byte before = child.content()[0];
    overlapped += write.done() ? 0 : 1;
    ready.RunUntilIdle();
    ASSERT_TRUE(write.done());
    EXPECT_EQ(child.content()[0], before);
  }
  EXPECT_EQ(overlapped, 0);  // who came later waited
}

TEST(AlignedNodeTest, DiscardsOnlyWholeUnits) {
  ReadyQueue ready;
  MemoryNode child({.size = 20000, .alignment = 4096});
  AlignedNode node(child, ready);
  EXPECT_TRUE(node.Discard(Range(1, 12287)).Take().ok());
  EXPECT_TRUE(node.Discard(Range(1, 4096)).Take().ok());
  EXPECT_TRUE(node.Discard(Range(16000, 4000)).Take().ok());
  ASSERT_EQ(child.calls().size(), 2u);
  EXPECT_EQ(child.calls()[0].range, Range(4096, 8192));
  EXPECT_EQ(child.calls()[1].range, Range(16384, 3616));
}

TEST(AlignedNodeTest, FastZeroOfPartOfAUnitIsRefusedUntouched) {
  ReadyQueue ready;
  MemoryNode child({.size = 8192, .alignment = 4096, .fast_zero = true});
  AlignedNode node(child, ready);
  const absl::Status status = node.Zero(Range(100, 100), {.fast_only = true}).Take();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_TRUE(child.calls().empty());
}

TEST(AlignedNodeTest, FastZeroThatTheChildCannotDoChangesNothing) {
  ReadyQueue ready;
  MemoryNode child({.size = 16384, .alignment = 4096});
  child.Fill(Range(0, 16384), std::byte{1});
  AlignedNode node(child, ready);
  const absl::Status status = node.Zero(Range(100, 16000), {.fast_only = true}).Take();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(child.content(), Pattern(16384, 1));
}

TEST(AlignedNodeTest, AUnitWhoseLastDataIsZeroedBecomesAHole) {
  ReadyQueue ready;
  MemoryNode child({.size = 4096, .alignment = 4096});
  child.Fill(Range(100, 10), std::byte{1});
  AlignedNode node(child, ready);
  EXPECT_TRUE(node.Zero(Range(90, 100), {}).Take().ok());
  EXPECT_EQ(child.CountCalls(NodeCall::kZero), 1u);
  EXPECT_EQ(child.CountCalls(NodeCall::kWrite), 0u);
}

TEST(AlignedNodeTest, BlockStatusStaysByteExact) {
  ReadyQueue ready;
  MemoryNode child({.size = 8192, .alignment = 4096});
  child.Fill(Range(3, 5), std::byte{1});
  AlignedNode node(child, ready);
  EXPECT_EQ(*node.BlockStatus(Range(1, 100), 10).Take(),
            *child.BlockStatus(Range(1, 100), 10).Take());
}

TEST(AlignedNodeTest, AFailedReadFailsTheWriteBeforeAnythingIsWritten) {
  ReadyQueue ready;
  MemoryNode child({.size = 1 << 20, .alignment = 4096});
  child.SetFault([](NodeCall call, ByteRange) {
    return call == NodeCall::kRead ? absl::DataLossError("bad sector") : absl::OkStatus();
  });
  AlignedNode node(child, ready);
  const uint64_t sizes[] = {100, 200000};
  for (const uint64_t size : sizes) {
    const std::vector<std::byte> bytes = Pattern(size, 1);
    const absl::Status status = node.Write(Range(10, size), bytes, {}).Take();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  }
  EXPECT_EQ(child.CountCalls(NodeCall::kWrite), 0u);
}

// A request and, where it is a read, what it must give.
struct Request {
  ByteRange range;
  std::vector<std::byte> buffer;  // with room to skew it in memory
  std::size_t skew = 0;
  std::vector<std::byte> expected;
  MutableBytes bytes() { return MutableBytes(buffer).subspan(skew, range.length.value); }
};

// Runs waves of concurrent requests on disjoint byte ranges, which yet share units, against a model
// that is a plain array of bytes.
class AlignedNodeModel {
 public:
  AlignedNodeModel(RandomSource& random, const MemoryNodeOptions& options)
      : random_(random), child_(options), node_(child_, ready_), model_(options.size) {
    ready_.SetChooser(&RandomSource::Choose, &random_);
    child_.SetDeferred(ready_, random_);
  }

  void RunWave() {
    std::vector<std::unique_ptr<Request>> requests;
    runtime::TaskSet tasks(ready_);
    std::vector<ByteRange> taken;
    for (uint64_t n = random_.Between(2, 12); n > 0; --n) {
      const ByteRange range = PickRange();
      if (std::any_of(taken.begin(), taken.end(),
                      [&](const ByteRange& other) { return Overlaps(range, other); })) {
        continue;
      }
      taken.push_back(range);
      requests.push_back(std::make_unique<Request>());
      Request& request = *requests.back();
      request.range = range;
      request.skew = random_.OneIn(2) ? 0 : random_.Below(16);
      request.buffer.resize(request.skew + range.length.value);
      tasks.Add(Start(request));
      if (random_.OneIn(3)) ready_.RunOnce();
    }
    ready_.RunUntilIdle();
    ASSERT_EQ(tasks.running(), 0u);
    ASSERT_EQ(child_.content(), model_);
  }

 private:
  // Mostly close together, so that requests meet in units.
  ByteRange PickRange() {
    const uint64_t size = model_.size();
    if (random_.OneIn(4)) return random_.RangeWithin(size);
    const uint64_t window = std::min<uint64_t>(size, 3 * child_.limits().alignment.value);
    ByteRange range = random_.RangeWithin(window);
    range.length.value = std::min<uint64_t>(range.length.value, random_.Between(1, window / 3 + 1));
    if (random_.OneIn(3)) range.offset.value += size - window;
    return range;
  }

  Task<void> Start(Request& request) {
    const auto first = model_.begin() + request.range.offset.value;
    const auto last = first + request.range.length.value;
    switch (random_.Below(4)) {
      case 0:
        request.expected.assign(first, last);
        return Read(request);
      case 1:
        std::fill(first, last, std::byte{0});
        return Zero(request);
      default:
        random_.FillNonZero(request.bytes());
        std::copy(request.bytes().begin(), request.bytes().end(), first);
        return Write(request);
    }
  }

  Task<void> Read(Request& request) {
    const absl::Status status = co_await node_.Read(request.range, request.bytes());
    EXPECT_TRUE(status.ok()) << status;
    const MutableBytes bytes = request.bytes();
    EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), request.expected.begin()));
  }
  Task<void> Write(Request& request) {
    const absl::Status status = co_await node_.Write(request.range, request.bytes(), {});
    EXPECT_TRUE(status.ok()) << status;
  }
  Task<void> Zero(Request& request) {
    const absl::Status status = co_await node_.Zero(request.range, {});
    EXPECT_TRUE(status.ok()) << status;
  }

  RandomSource& random_;
  ReadyQueue ready_;
  MemoryNode child_;
  AlignedNode node_;
  std::vector<std::byte> model_;
};

TEST(AlignedNodePropertyTest, ConcurrentRequestsLoseNoByte) {
  RandomSource random;
  for (int round = 0; round < 150; ++round) {
    MemoryNodeOptions options;
    options.alignment = random.PowerOfTwo(2, 1024);
    options.memory_alignment = random.OneIn(2) ? 1 : random.PowerOfTwo(1, 4096);
    options.size = random.Between(1, 40) * 512 + random.Below(513);
    AlignedNodeModel model(random, options);
    for (int wave = 0; wave < 25; ++wave) {
      ASSERT_NO_FATAL_FAILURE(model.RunWave())
          << "alignment " << options.alignment << ", memory " << options.memory_alignment;
    }
  }
}

TEST(AlignedNodePropertyTest, LargeRequestsInPiecesLoseNoByte) {
  RandomSource random;
  const uint64_t alignments[] = {512, 4096, 65536, 2 * kMiB};
  for (int round = 0; round < 12; ++round) {
    MemoryNodeOptions options;
    options.alignment = random.Pick(alignments);
    options.memory_alignment = random.OneIn(2) ? 1 : 512;
    options.size = 5 * kMiB + random.Below(5000);
    AlignedNodeModel model(random, options);
    for (int wave = 0; wave < 3; ++wave) ASSERT_NO_FATAL_FAILURE(model.RunWave());
  }
}

Task<void> WriteByte(AlignedNode& node, uint64_t at) {
  const std::byte byte{static_cast<uint8_t>(at % 255 + 1)};
  const absl::Status status = co_await node.Write(Range(at, 1), Bytes(&byte, 1), {});
  EXPECT_TRUE(status.ok());
}

TEST(AlignedNodePropertyTest, EveryByteOfAUnitSurvivesConcurrentWritersOfOneByteEach) {
  RandomSource random;
  ReadyQueue ready;
  ready.SetChooser(&RandomSource::Choose, &random);
  MemoryNode child({.size = 512, .alignment = 512});
  child.SetDeferred(ready, random);
  AlignedNode node(child, ready);
  runtime::TaskSet writers(ready);
  for (uint64_t at = 0; at < 512; ++at) writers.Add(WriteByte(node, at));
  ready.RunUntilIdle();
  for (uint64_t at = 0; at < 512; ++at) {
    ASSERT_EQ(child.content()[at], std::byte{static_cast<uint8_t>(at % 255 + 1)}) << at;
  }
}

}  // namespace
}  // namespace gabion::block
