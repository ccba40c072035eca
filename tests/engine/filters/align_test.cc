#include "engine/filters/align.h"

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <vector>

#include "engine/runtime/task_set.h"
#include "tests/engine/filters/filter_stand.h"

namespace gabion::filters {
namespace {

using test::CallRecord;
using test::MemoryNode;
using test::NodeCall;
using test::WholeOf;

TEST(AlignTest, TakesAnythingAndPrefersItsAlignment) {
  test::FilterStand stand;
  MemoryNode child({.size = 100000, .alignment = 512, .memory_alignment = 512});
  const auto filter = NewAlign(child, stand.environment(), "odd", {.alignment = 4096});
  EXPECT_EQ(filter->limits().alignment, ByteCount{1});
  EXPECT_EQ(filter->limits().alignment_from, "");
  EXPECT_EQ(filter->limits().preferred, ByteCount{4096});
  EXPECT_EQ(filter->limits().preferred_from, "odd");
  EXPECT_EQ(filter->limits().emulated_alignment, ByteCount{1});
  EXPECT_EQ(filter->limits().memory_alignment, 1u);
}

TEST(AlignTest, WhatIsEmulatedBelowIsNotTold) {
  test::FilterStand stand;
  MemoryNode memory({.size = 100000});
  test::RichNode child(memory);
  const auto filter = NewAlign(child, stand.environment(), "odd", {.alignment = 512});
  EXPECT_EQ(filter->limits().emulated_alignment, ByteCount{1});
  EXPECT_EQ(filter->limits().emulated_from, "");
  test::ExpectSameLimits(filter->limits(), child.limits(), {"emulated_alignment", "emulated_from"});
}

TEST(AlignTest, WithoutAnAlignmentOrWithASmallerOneItIsTheChilds) {
  test::FilterStand stand;
  MemoryNode child({.size = 100000, .alignment = 4096});
  const uint32_t alignments[] = {0, 512};
  for (const uint32_t alignment : alignments) {
    const auto filter = NewAlign(child, stand.environment(), "odd", {.alignment = alignment});
    EXPECT_EQ(filter->limits().alignment, ByteCount{1});
    EXPECT_EQ(filter->limits().preferred, ByteCount{4096});
    EXPECT_EQ(filter->limits().preferred_from, "odd");
  }
}

TEST(AlignTest, AWriteWithinAUnitReadsAndWritesTheUnit) {
  test::FilterStand stand;
  MemoryNode child({.size = 20000});
  child.Fill(Range(0, 20000), std::byte{1});
  const auto filter = NewAlign(child, stand.environment(), "odd", {.alignment = 4096});
  EXPECT_TRUE(filter->Write(Range(5000, 10), test::Filled(10, 2), {}).Take().ok());
  ASSERT_EQ(child.calls().size(), 2u);
  EXPECT_EQ(child.calls()[0].call, NodeCall::kRead);
  EXPECT_EQ(child.calls()[1].call, NodeCall::kWrite);
  for (const CallRecord& record : child.calls()) EXPECT_EQ(record.range, Range(4096, 4096));
  EXPECT_EQ(child.content()[4999], std::byte{1});
  EXPECT_EQ(child.content()[5000], std::byte{2});
}

TEST(AlignTest, LongRequestsAreCutInOrder) {
  test::FilterStand stand;
  MemoryNode child({.size = 20000, .fast_zero = true});
  const auto filter =
      NewAlign(child, stand.environment(), "odd", {.alignment = 512, .max_transfer = 8192});
  std::vector<std::byte> bytes = test::Filled(20000, 3);
  EXPECT_TRUE(filter->Write(Range(0, 20000), bytes, {.durable = true}).Take().ok());
  EXPECT_EQ(child.content(), bytes);
  EXPECT_TRUE(filter->Read(Range(0, 20000), bytes).Take().ok());
  EXPECT_EQ(bytes, test::Filled(20000, 3));
  EXPECT_TRUE(filter->Zero(Range(0, 20000), {.fast_only = true}).Take().ok());
  EXPECT_TRUE(filter->Discard(Range(0, 20000)).Take().ok());
  const NodeCall calls[] = {NodeCall::kWrite, NodeCall::kRead, NodeCall::kZero, NodeCall::kDiscard};
  const ByteRange pieces[] = {Range(0, 8192), Range(8192, 8192), Range(16384, 3616)};
  ASSERT_EQ(child.calls().size(), 12u);
  for (std::size_t i = 0; i < 12; ++i) {
    EXPECT_EQ(child.calls()[i].call, calls[i / 3]) << i;
    EXPECT_EQ(child.calls()[i].range, pieces[i % 3]) << i;
  }
  for (std::size_t i = 0; i < 3; ++i) EXPECT_TRUE(child.calls()[i].durable);
}

TEST(AlignTest, TheFirstErrorEndsARequest) {
  test::FilterStand stand;
  MemoryNode child({.size = 65536});
  child.SetFault([](NodeCall, ByteRange range) {
    return range.offset.value == 8192 ? absl::InternalError("bad") : absl::OkStatus();
  });
  const auto filter = NewAlign(child, stand.environment(), "odd", {.max_transfer = 4096});
  EXPECT_EQ(filter->Discard(Range(0, 65536)).Take(), absl::InternalError("bad"));
  EXPECT_EQ(child.calls().size(), 3u);
}

TEST(AlignTest, FastZerosThatAreNotFastChangeNothing) {
  test::FilterStand stand;
  MemoryNode child({.size = 65536});
  child.Fill(Range(0, 65536), std::byte{1});
  const auto filter = NewAlign(child, stand.environment(), "odd", {.max_transfer = 4096});
  EXPECT_EQ(filter->Zero(Range(0, 65536), {.fast_only = true}).Take().code(),
            absl::StatusCode::kUnimplemented);
  EXPECT_EQ(child.content(), test::Filled(65536, 1));
  EXPECT_EQ(child.calls().size(), 1u);
}

TEST(AlignTest, FastZerosThatHaveBegunAreFinished) {
  test::FilterStand stand;
  MemoryNode memory({.size = 65536, .fast_zero = true});
  memory.Fill(Range(0, 65536), std::byte{1});
  // Fast in the first half only.
  class HalfFast final : public block::FilterNode {
   public:
    using FilterNode::FilterNode;
    explicit HalfFast(block::Node& child) : FilterNode(child) {}

   private:
    Task<absl::Status> DoZero(ByteRange range, block::ZeroOptions options) override {
      if (options.fast_only && range.offset.value >= 32768) {
        return absl::Status(absl::UnimplementedError("slow"));
      }
      return child().Zero(range, options);
    }
  };
  HalfFast child(memory);
  const auto filter = NewAlign(child, stand.environment(), "odd", {.max_transfer = 8192});
  EXPECT_TRUE(filter->Zero(Range(0, 65536), {.fast_only = true}).Take().ok());
  EXPECT_EQ(memory.content(), test::Filled(65536, 0));
}

TEST(AlignTest, AnEndlessRequestLetsOthersRun) {
  test::FilterStand stand;
  MemoryNode child({.size = 4 << 20});
  const auto filter = NewAlign(child, stand.environment(), "odd", {.max_transfer = 4096});
  Task<absl::Status> discard = filter->Discard(Range(0, 4 << 20));
  EXPECT_FALSE(discard.done());
  EXPECT_LT(child.calls().size(), 100u);
  EXPECT_TRUE(stand.Finish(std::move(discard)).ok());
  EXPECT_EQ(child.calls().size(), 1024u);
}

TEST(AlignTest, FollowsItsChildInEveryWay) {
  test::FilterStand stand;
  MemoryNode child({.size = 5000});
  const auto filter = NewAlign(child, stand.environment(), "odd", {.alignment = 4096});
  EXPECT_TRUE(filter->Resize(ByteCount{9000}).Take().ok());
  EXPECT_EQ(filter->limits().size, ByteCount{9000});
  EXPECT_TRUE(child.Resize(ByteCount{12000}).Take().ok());
  filter->Refresh();
  EXPECT_EQ(filter->limits().size, ByteCount{12000});
  EXPECT_TRUE(filter->Write(Range(11999, 1), test::Filled(1, 1), {}).Take().ok());
  EXPECT_EQ(child.content()[11999], std::byte{1});
  EXPECT_TRUE(filter->Close().Take().ok());
  EXPECT_EQ(child.CountCalls(NodeCall::kFlush), 1u);
}

struct Request {
  ByteRange range;
  std::vector<std::byte> bytes;
};

Task<void> RunWrite(Filter& filter, Request& request) {
  const absl::Status status = co_await filter.Write(request.range, request.bytes, {});
  EXPECT_TRUE(status.ok()) << status;
}
Task<void> RunZero(Filter& filter, Request& request) {
  const absl::Status status = co_await filter.Zero(request.range, {});
  EXPECT_TRUE(status.ok()) << status;
}

void ExpectCallsKeep(const MemoryNode& child, uint64_t alignment, uint64_t longest) {
  for (const CallRecord& record : child.calls()) {
    if (record.call == NodeCall::kBlockStatus) continue;
    EXPECT_TRUE(IsAlignedWithin(record.range, ByteCount{alignment}, child.limits().size));
    EXPECT_LE(record.range.length.value, longest);
  }
}

// Concurrent writes and zeros of disjoint ranges, which share units.
TEST(AlignPropertyTest, RequestsBelowKeepAlignmentAndLengthAndLoseNoByte) {
  test::RandomSource random;
  for (int round = 0; round < 100; ++round) {
    test::FilterStand stand;
    stand.ready.SetChooser(&test::RandomSource::Choose, &random);
    MemoryNode child({.size = random.Between(1, 60000),
                      .alignment = random.PowerOfTwo(1, 512),
                      .memory_alignment = static_cast<uint32_t>(random.PowerOfTwo(1, 512))});
    test::FillAtRandom(child, random);
    child.SetDeferred(stand.ready, random);
    const auto alignment = static_cast<uint32_t>(random.PowerOfTwo(1, 8192));
    const auto longest = static_cast<uint32_t>(random.OneIn(3) ? 0 : 4096 * random.Between(1, 4));
    const auto filter = NewAlign(child, stand.environment(), "odd",
                                 {.alignment = alignment, .max_transfer = longest});
    std::vector<std::byte> model = child.content();
    std::vector<std::unique_ptr<Request>> requests;
    runtime::TaskSet tasks(stand.ready);
    for (uint64_t at = 0; at < model.size();) {
      const uint64_t length = std::min(model.size() - at, random.PowerOfTwo(1, 32768));
      requests.push_back(std::make_unique<Request>(Request{Range(at, length), {}}));
      Request& request = *requests.back();
      request.bytes.resize(length);
      if (random.OneIn(4)) {
        tasks.Add(RunZero(*filter, request));
      } else {
        random.FillNonZero(request.bytes);
        tasks.Add(RunWrite(*filter, request));
      }
      std::memcpy(&model[at], request.bytes.data(), length);
      at += length;
    }
    stand.ready.RunUntilIdle();
    ASSERT_EQ(tasks.running(), 0u);
    ASSERT_EQ(child.content(), model);
    const uint64_t unit = std::max<uint64_t>(
        {alignment, child.limits().alignment.value, child.limits().memory_alignment});
    const uint64_t limit = longest == 0 ? ~uint64_t{0} : std::max<uint64_t>(longest, unit);
    ExpectCallsKeep(child, std::max<uint64_t>(alignment, child.limits().alignment.value), limit);
    ASSERT_EQ(MapOf(stand, *filter, WholeOf(*filter), 5), MapOf(stand, child, WholeOf(child), 5));
  }
}

}  // namespace
}  // namespace gabion::filters
