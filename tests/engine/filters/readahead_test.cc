#include "engine/filters/readahead.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "engine/runtime/event.h"
#include "tests/engine/filters/filter_stand.h"

namespace gabion::filters {
namespace {

using test::CallRecord;
using test::MemoryNode;
using test::NodeCall;

class ReadaheadTest : public testing::Test {
 protected:
  explicit ReadaheadTest(uint64_t size = 1 << 20, uint64_t alignment = 1)
      : child_({.size = size, .alignment = alignment}) {}

  void Read(Filter& filter, uint64_t offset, uint64_t length) {
    std::vector<std::byte> bytes(length);
    EXPECT_TRUE(stand_.Finish(filter.Read(Range(offset, length), bytes)).ok());
  }
  std::vector<ByteRange> Asked() const {
    std::vector<ByteRange> asked;
    for (const CallRecord& record : child_.calls()) {
      if (record.call == NodeCall::kCache) asked.push_back(record.range);
    }
    return asked;
  }

  test::FilterStand stand_;
  MemoryNode child_;
};

TEST_F(ReadaheadTest, SingleReadsAskForNothing) {
  const auto filter = NewReadahead(child_, stand_.environment(), {});
  const uint64_t offsets[] = {0, 8192, 65536, 4096, 500000};
  for (const uint64_t offset : offsets) Read(*filter, offset, 4096 - 1);
  EXPECT_TRUE(Asked().empty());
}

TEST_F(ReadaheadTest, TheSecondReadOfASequenceAsksForTwiceItsLength) {
  const auto filter = NewReadahead(child_, stand_.environment(), {});
  Read(*filter, 10000, 4096);
  Read(*filter, 14096, 4096);
  EXPECT_EQ(Asked(), std::vector<ByteRange>{Range(18192, 8192)});
}

TEST_F(ReadaheadTest, TheWindowDoublesAndNothingIsAskedForTwice) {
  const auto filter = NewReadahead(child_, stand_.environment(), {.max_window = 65536});
  uint64_t at = 0;
  for (int i = 0; i < 40; ++i, at += 4096) Read(*filter, at, 4096);
  const std::vector<ByteRange> asked = Asked();
  ASSERT_GE(asked.size(), 4u);
  EXPECT_EQ(asked[0], Range(8192, 8192));
  uint64_t end = asked[0].offset.value;
  for (const ByteRange& range : asked) {
    EXPECT_EQ(range.offset.value, end) << "in order, no gap, nothing twice";
    end = range.end().value;
  }
  EXPECT_GT(end, at + 65536 / 2 - 4096);
  EXPECT_LE(end, at + 65536);
  EXPECT_LT(asked.size(), 10u) << "in pieces that are worth a call";
}

TEST_F(ReadaheadTest, AWindowOfNothingAsksForNothing) {
  const auto filter = NewReadahead(child_, stand_.environment(), {.max_window = 0});
  for (uint64_t at = 0; at < 40960; at += 4096) Read(*filter, at, 4096);
  EXPECT_TRUE(Asked().empty());
  filter->Configure({.max_window = 8192});
  Read(*filter, 40960, 4096);
  EXPECT_EQ(Asked(), std::vector<ByteRange>{Range(45056, 8192)});
}

TEST_F(ReadaheadTest, EightSequencesAreFollowedAtOnce) {
  const auto filter = NewReadahead(child_, stand_.environment(), {});
  for (uint64_t i = 0; i < 8; ++i) Read(*filter, i * 100000, 4096);
  for (uint64_t i = 0; i < 8; ++i) Read(*filter, i * 100000 + 4096, 4096);
  EXPECT_EQ(Asked().size(), 8u);
}

TEST_F(ReadaheadTest, TheOneThatRestedLongestIsForgotten) {
  const auto filter = NewReadahead(child_, stand_.environment(), {});
  for (uint64_t i = 0; i < 9; ++i) Read(*filter, i * 100000, 4096);
  Read(*filter, 100000 + 4096, 4096);
  EXPECT_EQ(Asked().size(), 1u) << "the second is known";
  child_.ClearCalls();
  Read(*filter, 4096, 4096);
  EXPECT_TRUE(Asked().empty()) << "the first is not";
}

TEST_F(ReadaheadTest, EndsAtTheEndOfTheDisk) {
  const auto filter = NewReadahead(child_, stand_.environment(), {});
  const uint64_t size = 1 << 20;
  Read(*filter, size - 10000, 3000);
  Read(*filter, size - 7000, 3000);
  EXPECT_EQ(Asked(), std::vector<ByteRange>{Range(size - 4000, 4000)});
  Read(*filter, size - 4000, 4000);
  EXPECT_EQ(Asked().size(), 1u);
}

TEST_F(ReadaheadTest, ErrorsOfItsOwnRequestsAreIgnored) {
  child_.SetFault([](NodeCall call, ByteRange) {
    return call == NodeCall::kCache ? absl::InternalError("no") : absl::OkStatus();
  });
  const auto filter = NewReadahead(child_, stand_.environment(), {});
  for (uint64_t at = 0; at < 65536; at += 4096) Read(*filter, at, 4096);
  EXPECT_GE(Asked().size(), 2u);
}

// Cache() takes until the test lets it go.
class HeldCache final : public block::FilterNode {
 public:
  HeldCache(block::Node& child, runtime::ReadyQueue& ready) : FilterNode(child), freed_(ready) {}
  void Free() {
    held_ = false;
    freed_.WakeAll();
  }
  int under_way() const { return under_way_; }

 private:
  Task<absl::Status> DoCache(ByteRange range) override {
    ++under_way_;
    while (held_) co_await freed_.Wait();
    absl::Status status = co_await child().Cache(range);
    --under_way_;
    co_return status;
  }

  bool held_ = true;
  runtime::Signal freed_;
  int under_way_ = 0;
};

TEST_F(ReadaheadTest, ReadsDoNotWaitAndOneRequestPerSequenceIsUnderWay) {
  HeldCache held(child_, stand_.ready);
  const auto filter = NewReadahead(held, stand_.environment(), {});
  for (uint64_t at = 0; at < 10 * 4096; at += 4096) Read(*filter, at, 4096);
  EXPECT_EQ(held.under_way(), 1);
  for (uint64_t i = 1; i < 12; ++i) {
    Read(*filter, i * 80000, 4096);
    Read(*filter, i * 80000 + 4096, 4096);
  }
  EXPECT_EQ(held.under_way(), 8) << "one for each sequence that is followed";
  held.Free();
  EXPECT_TRUE(stand_.Finish(filter->Close()).ok());
  EXPECT_EQ(Asked().size(), 8u);
}

TEST_F(ReadaheadTest, CloseWaitsForWhatIsUnderWayAndThenFlushes) {
  HeldCache held(child_, stand_.ready);
  const auto filter = NewReadahead(held, stand_.environment(), {});
  Read(*filter, 0, 4096);
  Read(*filter, 4096, 4096);
  Task<absl::Status> close = filter->Close();
  stand_.ready.RunUntilIdle();
  EXPECT_FALSE(close.done());
  EXPECT_EQ(child_.CountCalls(NodeCall::kFlush), 0u);
  held.Free();
  EXPECT_TRUE(stand_.Finish(std::move(close)).ok());
  EXPECT_EQ(child_.calls().back().call, NodeCall::kFlush);
}

TEST_F(ReadaheadTest, ResizeFindsTheChildAlone) {
  HeldCache held(child_, stand_.ready);
  const auto filter = NewReadahead(held, stand_.environment(), {});
  Read(*filter, 0, 4096);
  Read(*filter, 4096, 4096);
  Task<absl::Status> resize = filter->Resize(ByteCount{2 << 20});
  stand_.ready.RunUntilIdle();
  EXPECT_FALSE(resize.done());
  held.Free();
  EXPECT_TRUE(stand_.Finish(std::move(resize)).ok());
  EXPECT_EQ(filter->limits().size, ByteCount{2 << 20});
}

// The memory node checks that what it is asked for is within the disk and aligned.
TEST(ReadaheadPropertyTest, AsksOnlyForWhatTheDiskHasAndAtMostOncePerReader) {
  test::RandomSource random;
  for (int round = 0; round < 200; ++round) {
    test::FilterStand stand;
    stand.ready.SetChooser(&test::RandomSource::Choose, &random);
    const uint64_t alignment = random.PowerOfTwo(1, 512);
    MemoryNode child({.size = random.Between(1, 100) * 1000, .alignment = alignment});
    test::FillAtRandom(child, random);
    child.SetDeferred(stand.ready, random);
    const auto max_window = static_cast<uint32_t>(random.Below(20000));
    const auto filter = NewReadahead(child, stand.environment(), {.max_window = max_window});
    const uint64_t size = child.limits().size.value;
    uint64_t at = 0;
    for (int i = 0; i < 60; ++i) {
      if (at >= size || random.OneIn(10)) at = RoundDown(random.Below(size), alignment);
      const uint64_t length = std::min(size - at, alignment * random.Between(1, 8));
      std::vector<std::byte> bytes(length);
      ASSERT_TRUE(stand.Finish(filter->Read(Range(at, length), bytes)).ok());
      ASSERT_TRUE(test::HasAt(child.content(), at, bytes));
      at += length;
    }
    for (const CallRecord& record : child.calls()) {
      if (record.call != NodeCall::kCache) continue;
      EXPECT_LE(record.range.length.value, max_window);
    }
    EXPECT_TRUE(stand.Finish(filter->Close()).ok());
  }
}

}  // namespace
}  // namespace gabion::filters
