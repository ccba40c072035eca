#include "engine/filters/cache.h"

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "engine/block/sparse_memory.h"
#include "tests/engine/filters/disk_model.h"

namespace gabion::filters {
namespace {

using block::ExtentKind;
using block::ExtentList;
using test::CounterOf;
using test::DiskModel;
using test::Filled;
using test::FilterBase;
using test::MemoryNode;
using test::NodeCall;
using test::RandomSource;
using Mode = CacheOptions::Mode;

constexpr uint64_t kB = 4096;
constexpr uint64_t kSize = 20 * kB + 100;

class CacheTest : public testing::Test {
 protected:
  CacheTest() { child_.Fill(Range(0, kSize), std::byte{1}, 2); }
  ~CacheTest() override {
    if (cache_ != nullptr) base_.Finish(cache_->Settle());
  }

  // A cache of four blocks.
  void Start(Mode mode) {
    options_.mode = mode;
    state_ = NewCacheState(base_.ready, options_);
    cache_ = Make();
  }
  std::unique_ptr<LiveFilter<CacheOptions>> Make() {
    return NewCache(child_, base_.environment(), "fast", scratch_, *state_, options_);
  }

  void FailChild(NodeCall call, std::optional<uint64_t> at) {
    child_.SetFault([call, at](NodeCall each, ByteRange range) {
      const bool fails = at.has_value() && each == call && Overlaps(range, Range(*at, 1));
      return fails ? absl::InternalError("broken") : absl::OkStatus();
    });
  }
  void FailScratch(NodeCall call) {
    scratch_.SetFault([call](NodeCall each, ByteRange) {
      return each == call ? absl::InternalError("broken") : absl::OkStatus();
    });
  }
  absl::Status Flush() { return base_.Finish(cache_->Flush()); }

  FilterBase base_;
  MemoryNode child_{{.size = kSize, .layers = 2, .fast_zero = true}};
  MemoryNode scratch_{{.size = 4 * kB}};
  CacheOptions options_{.block_size = kB, .size = 4 * kB, .dirty_high_percent = 100};
  std::unique_ptr<CacheState> state_;
  std::unique_ptr<LiveFilter<CacheOptions>> cache_;
};

TEST_F(CacheTest, ASecondReadDoesNotReachTheChild) {
  Start(Mode::kWritethrough);
  EXPECT_EQ(base_.Read(*cache_, Range(kB + 10, 10)), Filled(10, 1));
  EXPECT_EQ(base_.Read(*cache_, Range(kB, kB)), Filled(kB, 1));
  EXPECT_EQ(child_.CountCalls(NodeCall::kRead), 1u);
  EXPECT_EQ(CounterOf(*cache_, "hits"), 1u);
  EXPECT_EQ(CounterOf(*cache_, "misses"), 1u);
}

TEST_F(CacheTest, NeighboursThatAreMissingAreReadTogether) {
  Start(Mode::kWritethrough);
  EXPECT_EQ(base_.Read(*cache_, Range(kB, 3 * kB)), Filled(3 * kB, 1));
  EXPECT_EQ(child_.CountCalls(NodeCall::kRead), 1u);
  EXPECT_EQ(CounterOf(*cache_, "misses"), 3u);
}

TEST_F(CacheTest, ReadsAreNotKeptIfTheyAreNotToBe) {
  options_.cache_on_read = false;
  Start(Mode::kWritethrough);
  base_.Read(*cache_, Range(10, 10));
  base_.Read(*cache_, Range(10, 10));
  EXPECT_EQ(child_.CountCalls(NodeCall::kRead), 2u);
  EXPECT_EQ(child_.calls()[0].range, Range(10, 10));
}

TEST_F(CacheTest, CacheReadsIntoTheCache) {
  Start(Mode::kWritethrough);
  EXPECT_TRUE(base_.Finish(cache_->Cache(Range(kB + 5, 2 * kB))).ok());
  child_.ClearCalls();
  EXPECT_EQ(base_.Read(*cache_, Range(kB, 3 * kB)), Filled(3 * kB, 1));
  EXPECT_TRUE(child_.calls().empty());
}

TEST_F(CacheTest, WritesGoThroughAndAreKept) {
  Start(Mode::kWritethrough);
  EXPECT_TRUE(base_.Write(*cache_, Range(0, kB), 7).ok());
  EXPECT_EQ(child_.content()[0], std::byte{7});
  EXPECT_EQ(CounterOf(*cache_, "dirty_bytes"), 0u);
  EXPECT_EQ(base_.Read(*cache_, Range(0, kB)), Filled(kB, 7));
  EXPECT_EQ(child_.CountCalls(NodeCall::kRead), 0u);
}

TEST_F(CacheTest, WritesAreDoneBeforeTheChildHasThemAndAFlushBringsThem) {
  Start(Mode::kWriteback);
  EXPECT_TRUE(base_.Write(*cache_, Range(kB, kB), 7).ok());
  EXPECT_TRUE(base_.Write(*cache_, Range(2 * kB + 10, 10), 8).ok());
  EXPECT_EQ(child_.CountCalls(NodeCall::kWrite), 0u);
  EXPECT_EQ(CounterOf(*cache_, "dirty_bytes"), 2 * kB);
  child_.ClearCalls();
  EXPECT_TRUE(Flush().ok());
  ASSERT_EQ(child_.calls().size(), 2u);
  EXPECT_EQ(child_.calls()[0].call, NodeCall::kWrite);
  EXPECT_EQ(child_.calls()[0].range, Range(kB, 2 * kB)) << "neighbours in one piece";
  EXPECT_EQ(child_.calls()[1].call, NodeCall::kFlush);
  EXPECT_EQ(CounterOf(*cache_, "dirty_bytes"), 0u);
  EXPECT_EQ(CounterOf(*cache_, "written_back_bytes"), 2 * kB);
  EXPECT_EQ(child_.content()[2 * kB + 10], std::byte{8});
  EXPECT_EQ(child_.content()[2 * kB + 20], std::byte{1});
}

TEST_F(CacheTest, ADurableWriteGoesToTheChildAsOne) {
  Start(Mode::kWriteback);
  EXPECT_TRUE(base_.Write(*cache_, Range(10, 20), 7).ok());
  EXPECT_TRUE(base_.Write(*cache_, Range(20, 5), 8, true).ok());
  ASSERT_EQ(child_.CountCalls(NodeCall::kWrite), 1u);
  EXPECT_TRUE(child_.calls().back().durable);
  EXPECT_EQ(child_.content()[20], std::byte{8});
  EXPECT_EQ(child_.content()[10], std::byte{1}) << "nobody has asked for that";
  EXPECT_TRUE(Flush().ok());
  EXPECT_EQ(child_.content()[10], std::byte{7});
  EXPECT_EQ(child_.content()[20], std::byte{8});
}

TEST_F(CacheTest, WhereAllIsDirtyTheChildIsWrittenTo) {
  Start(Mode::kWriteback);
  EXPECT_TRUE(base_.Write(*cache_, Range(0, 4 * kB), 7).ok());
  EXPECT_TRUE(base_.Write(*cache_, Range(9 * kB + 5, 10), 8).ok());
  EXPECT_EQ(child_.CountCalls(NodeCall::kWrite), 1u);
  EXPECT_EQ(base_.Read(*cache_, Range(9 * kB + 5, 10)), Filled(10, 8));
  EXPECT_EQ(CounterOf(*cache_, "evictions"), 0u);
}

TEST_F(CacheTest, CleanBlocksMakeRoom) {
  Start(Mode::kWriteback);
  base_.Read(*cache_, Range(0, 4 * kB));
  EXPECT_TRUE(base_.Write(*cache_, Range(8 * kB, 2 * kB), 7).ok());
  EXPECT_EQ(child_.CountCalls(NodeCall::kWrite), 0u);
  EXPECT_EQ(CounterOf(*cache_, "evictions"), 2u);
}

TEST_F(CacheTest, AboveTheHighMarkBlocksAreWrittenBackDownToTheLowOne) {
  options_.dirty_high_percent = 50;
  options_.dirty_low_percent = 25;
  Start(Mode::kWriteback);
  EXPECT_TRUE(base_.Write(*cache_, Range(0, kB), 7).ok());
  EXPECT_TRUE(base_.Write(*cache_, Range(2 * kB, kB), 7).ok());
  EXPECT_EQ(CounterOf(*cache_, "dirty_bytes"), 2 * kB);
  EXPECT_TRUE(base_.Write(*cache_, Range(4 * kB, kB), 7).ok());
  EXPECT_EQ(CounterOf(*cache_, "dirty_bytes"), kB);
  EXPECT_EQ(child_.CountCalls(NodeCall::kFlush), 0u);
}

TEST_F(CacheTest, ABlockThatCannotBeWrittenBackStaysDirtyAndFailsEachFlushUntilItCan) {
  Start(Mode::kWriteback);
  EXPECT_TRUE(base_.Write(*cache_, Range(0, 3 * kB), 7).ok());
  FailChild(NodeCall::kWrite, kB);
  for (int i = 0; i < 2; ++i) {
    const absl::Status status = Flush();
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
    EXPECT_NE(status.message().find("exports/a, filter 'f'"), std::string::npos) << status;
    EXPECT_EQ(CounterOf(*cache_, "dirty_bytes"), kB) << "its neighbours are written";
  }
  EXPECT_EQ(child_.content()[0], std::byte{7});
  EXPECT_EQ(child_.content()[2 * kB], std::byte{7});
  EXPECT_EQ(base_.Read(*cache_, Range(kB, kB)), Filled(kB, 7));
  FailChild(NodeCall::kWrite, std::nullopt);
  EXPECT_TRUE(Flush().ok());
  EXPECT_EQ(child_.content()[kB], std::byte{7});
}

TEST_F(CacheTest, AfterAnErrorTheBackgroundRestsForASecond) {
  options_.dirty_high_percent = 25;
  options_.dirty_low_percent = 0;
  Start(Mode::kWriteback);
  FailChild(NodeCall::kWrite, kB);
  EXPECT_TRUE(base_.Write(*cache_, Range(kB, kB), 7).ok());
  EXPECT_TRUE(base_.Write(*cache_, Range(3 * kB, kB), 7).ok());
  const std::size_t attempts = child_.CountCalls(NodeCall::kWrite);
  EXPECT_TRUE(base_.Write(*cache_, Range(3 * kB, kB), 8).ok());
  EXPECT_EQ(child_.CountCalls(NodeCall::kWrite), attempts);
  FailChild(NodeCall::kWrite, std::nullopt);
  base_.clock.Advance(std::chrono::seconds(1));
  EXPECT_TRUE(base_.Write(*cache_, Range(3 * kB, kB), 8).ok());
  EXPECT_EQ(CounterOf(*cache_, "dirty_bytes"), 0u);
}

TEST_F(CacheTest, StatusSaysThatDirtyBlocksAreDataOfTheTopLayer) {
  Start(Mode::kWriteback);
  child_.SetStatus(Range(0, 10 * kB), ExtentKind::kZero, 2);
  EXPECT_TRUE(base_.Write(*cache_, Range(kB + 10, 1), 7).ok());
  EXPECT_TRUE(base_.Write(*cache_, Range(20 * kB + 99, 1), 7).ok());
  base_.Read(*cache_, Range(4 * kB, kB));  // clean
  const ExtentList expected = {
      {.range = Range(5, kB - 5), .kind = ExtentKind::kZero, .layer = 2},
      {.range = Range(kB, kB), .layer = 1, .apart = true},
      {.range = Range(2 * kB, 8 * kB), .kind = ExtentKind::kZero, .layer = 2},
      {.range = Range(10 * kB, 10 * kB), .layer = 2},
      {.range = Range(20 * kB, 100), .layer = 1, .apart = true}};
  EXPECT_EQ(base_.StatusOf(*cache_, Range(5, kSize - 5), 100), expected);
  EXPECT_EQ(base_.StatusOf(*cache_, Range(5, kSize - 5), 1), expected);
  EXPECT_TRUE(Flush().ok());
  EXPECT_EQ(base_.StatusOf(*cache_, Range(0, kSize), 100),
            base_.StatusOf(child_, Range(0, kSize), 100));
}

TEST_F(CacheTest, ZerosReplaceDirtyBlocksAndPartsOfThem) {
  Start(Mode::kWriteback);
  EXPECT_TRUE(base_.Write(*cache_, Range(0, 3 * kB), 7).ok());
  EXPECT_TRUE(base_.Finish(cache_->Zero(Range(kB / 2, 2 * kB), {})).ok());
  EXPECT_EQ(CounterOf(*cache_, "dirty_bytes"), 2 * kB);
  std::vector<std::byte> expected = Filled(3 * kB, 7);
  std::fill_n(expected.begin() + kB / 2, 2 * kB, std::byte{0});
  EXPECT_EQ(base_.Read(*cache_, Range(0, 3 * kB)), expected);
  EXPECT_TRUE(Flush().ok());
  EXPECT_EQ(base_.Read(child_, Range(0, 3 * kB)), expected);
}

TEST_F(CacheTest, AFastZeroThatTheChildCannotDoLosesNothing) {
  MemoryNode slow({.size = kSize});
  options_.mode = Mode::kWriteback;
  state_ = NewCacheState(base_.ready, options_);
  const auto cache = NewCache(slow, base_.environment(), "fast", scratch_, *state_, options_);
  EXPECT_TRUE(base_.Write(*cache, Range(0, kB), 7).ok());
  const absl::Status status = base_.Finish(cache->Zero(Range(0, kB), {.fast_only = true}));
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(base_.Read(*cache, Range(0, kB)), Filled(kB, 7));
  base_.Finish(cache->Settle());
}

TEST_F(CacheTest, ADiscardNeverBringsOlderBytesBack) {
  for (const bool fast_zero : {false, true}) {
    MemoryNode child({.size = kSize, .fast_zero = fast_zero, .discard_zeroes = false});
    child.Fill(Range(0, kSize), std::byte{1});
    options_.mode = Mode::kWriteback;
    state_ = NewCacheState(base_.ready, options_);
    const auto cache = NewCache(child, base_.environment(), "fast", scratch_, *state_, options_);
    EXPECT_TRUE(base_.Write(*cache, Range(0, 2 * kB), 7).ok());
    EXPECT_TRUE(base_.Finish(cache->Discard(Range(0, 2 * kB))).ok());
    EXPECT_EQ(base_.Read(*cache, Range(0, 2 * kB)), Filled(2 * kB, fast_zero ? 0 : 7));
    base_.Finish(cache->Settle());
  }
}

TEST_F(CacheTest, ABrokenScratchNodeCostsNothingButTime) {
  Start(Mode::kWriteback);
  base_.Read(*cache_, Range(0, kB));
  FailScratch(NodeCall::kRead);
  EXPECT_EQ(base_.Read(*cache_, Range(0, kB)), Filled(kB, 1));
  FailScratch(NodeCall::kWrite);
  EXPECT_EQ(base_.Read(*cache_, Range(kB, kB)), Filled(kB, 1));
  EXPECT_TRUE(base_.Write(*cache_, Range(0, 3 * kB + 5), 7).ok());
  EXPECT_EQ(CounterOf(*cache_, "dirty_bytes"), 0u);
  EXPECT_EQ(child_.content()[3 * kB + 4], std::byte{7});
}

TEST_F(CacheTest, BytesThatOnlyABrokenScratchNodeHasAreAnError) {
  Start(Mode::kWriteback);
  EXPECT_TRUE(base_.Write(*cache_, Range(0, kB), 7).ok());
  FailScratch(NodeCall::kRead);
  std::vector<std::byte> bytes(kB);
  EXPECT_EQ(base_.Finish(cache_->Read(Range(0, kB), bytes)).code(), absl::StatusCode::kInternal);
  EXPECT_EQ(Flush().code(), absl::StatusCode::kInternal);
  base_.Finish(cache_->Settle());
  ASSERT_EQ(base_.logger.lines.size(), 1u);
  EXPECT_NE(base_.logger.lines[0].message.find("4096 bytes"), std::string::npos);
  scratch_.SetFault(nullptr);
}

// A write that goes to the child at once, because of the mode or because it is durable, while some
// of the scratch node's writes fail.
class CacheFailedWriteTest : public CacheTest,
                             public testing::WithParamInterface<std::tuple<Mode, int>> {};

TEST_P(CacheFailedWriteTest, LeavesNoCleanBlockOlderThanTheChild) {
  const auto [mode, failures] = GetParam();
  Start(Mode::kWriteback);
  EXPECT_TRUE(base_.Write(*cache_, Range(10, 10), 7).ok());
  base_.Read(*cache_, Range(kB, 2 * kB));
  FailChild(NodeCall::kWrite, 0);  // else a change to writethrough brings it there
  options_.mode = mode;
  cache_->Configure(options_);
  base_.ready.RunUntilIdle();
  FailChild(NodeCall::kWrite, std::nullopt);
  ASSERT_EQ(CounterOf(*cache_, "dirty_bytes"), kB) << "only the first block is";

  scratch_.SetFault([left = failures](NodeCall call, ByteRange) mutable {
    const bool fails = call == NodeCall::kWrite && left-- > 0;
    return fails ? absl::InternalError("broken") : absl::OkStatus();
  });
  const ByteRange range = Range(kB / 2, 2 * kB);
  const bool durable = mode == Mode::kWriteback;
  EXPECT_EQ(base_.Write(*cache_, range, 8, durable).code(), absl::StatusCode::kInternal);
  scratch_.SetFault(nullptr);
  EXPECT_EQ(CounterOf(*cache_, "dirty_bytes"), kB) << "it keeps what the child does not have";

  EXPECT_EQ(base_.Read(child_, range), Filled(2 * kB, 8));
  EXPECT_EQ(base_.Read(*cache_, Range(kB, kB)), Filled(kB, 8)) << "was written as a whole";
  EXPECT_EQ(base_.Read(*cache_, Range(2 * kB, kB)), base_.Read(child_, Range(2 * kB, kB)));
  EXPECT_EQ(base_.Read(*cache_, Range(10, 10)), Filled(10, 7));
}

INSTANTIATE_TEST_SUITE_P(OneOrAll, CacheFailedWriteTest,
                         testing::Combine(testing::Values(Mode::kWriteback, Mode::kWritethrough),
                                          testing::Values(1, 3)));

TEST_F(CacheTest, AnotherFilterGoesOnAndTheOneBeforeWritesNothingBack) {
  Start(Mode::kWriteback);
  EXPECT_TRUE(base_.Write(*cache_, Range(0, kB), 7).ok());
  auto next = Make();
  base_.Finish(next->Settle());  // it was not put in place
  EXPECT_EQ(child_.CountCalls(NodeCall::kWrite), 0u);
  next = Make();
  next->TakeOver(*cache_);
  base_.Finish(cache_->Settle());
  EXPECT_EQ(child_.CountCalls(NodeCall::kWrite), 0u);
  cache_ = std::move(next);
  EXPECT_EQ(base_.Read(*cache_, Range(0, kB)), Filled(kB, 7));
  base_.Finish(cache_->Settle());
  EXPECT_EQ(child_.content()[0], std::byte{7});
}

TEST_F(CacheTest, OnceItIsWritethroughAFlushLeavesNothingBehind) {
  Start(Mode::kWriteback);
  EXPECT_TRUE(base_.Write(*cache_, Range(0, 2 * kB), 7).ok());
  options_.mode = Mode::kWritethrough;
  cache_->Configure(options_);
  EXPECT_TRUE(Flush().ok());
  EXPECT_TRUE(base_.Write(*cache_, Range(10, kB), 8).ok());
  EXPECT_EQ(CounterOf(*cache_, "dirty_bytes"), 0u);
  EXPECT_EQ(base_.Read(child_, Range(10, kB)), Filled(kB, 8));
}

TEST_F(CacheTest, TheLastBlockGoesOnWithZerosWhenTheDiskGrows) {
  Start(Mode::kWriteback);
  EXPECT_TRUE(base_.Write(*cache_, Range(0, 4 * kB), 9).ok());  // so that slots are not empty
  EXPECT_TRUE(Flush().ok());
  EXPECT_TRUE(base_.Write(*cache_, Range(20 * kB + 99, 1), 7).ok());
  EXPECT_TRUE(base_.Finish(cache_->Resize(ByteCount{22 * kB})).ok());
  EXPECT_EQ(cache_->limits().size, ByteCount{22 * kB});
  std::vector<std::byte> expected = Filled(2 * kB, 0);
  std::fill_n(expected.begin(), 99, std::byte{1});
  expected[99] = std::byte{7};
  EXPECT_EQ(base_.Read(*cache_, Range(20 * kB, 2 * kB)), expected);
  EXPECT_TRUE(Flush().ok());
  EXPECT_EQ(base_.Read(child_, Range(20 * kB, 2 * kB)), expected);
  EXPECT_TRUE(base_.Write(*cache_, Range(0, kB), 5).ok());
  EXPECT_TRUE(base_.Finish(cache_->Resize(ByteCount{100})).ok());
  EXPECT_EQ(base_.Read(*cache_, Range(0, 100)), Filled(100, 5));
  EXPECT_EQ(child_.content(), Filled(100, 5));
}

TEST_F(CacheTest, PrefersItsBlocks) {
  Start(Mode::kWriteback);
  EXPECT_EQ(cache_->limits().preferred, ByteCount{kB});
  EXPECT_EQ(cache_->limits().preferred_from, "fast");
  EXPECT_EQ(CacheScratchSize({.block_size = kB, .size = 3 * kB + 5}), ByteCount{3 * kB});
}

// One round of the property below.
class CacheRound {
 public:
  explicit CacheRound(RandomSource& random) : random_(random) {
    base_.ready.SetChooser(&RandomSource::Choose, &random_);
    options_.mode = random_.OneIn(3) ? Mode::kWritethrough : Mode::kWriteback;
    options_.block_size = static_cast<uint32_t>(random_.PowerOfTwo(4096, 16384));
    options_.size = options_.block_size * random_.Between(1, 8);
    options_.cache_on_read = !random_.OneIn(4);
    options_.dirty_high_percent = static_cast<uint32_t>(random_.Between(1, 100));
    options_.dirty_low_percent =
        static_cast<uint32_t>(random_.Between(0, options_.dirty_high_percent));
    child_ =
        std::make_unique<MemoryNode>(test::MemoryNodeOptions{.size = random_.Between(1, 150000),
                                                             .layers = 3,
                                                             .fast_zero = random_.OneIn(2),
                                                             .discard_zeroes = random_.OneIn(2)});
    scratch_ = std::make_unique<MemoryNode>(
        test::MemoryNodeOptions{.size = CacheScratchSize(options_).value});
    FillAtRandom(*child_, random_);
    content_ = child_->content();
    child_->SetDeferred(base_.ready, random_);
    scratch_->SetDeferred(base_.ready, random_);
    state_ = NewCacheState(base_.ready, options_);
    cache_ = Make();
  }

  void Run() {
    const bool may_fail = random_.OneIn(3);
    DiskModel model(base_, random_, *cache_, content_,
                    {.window = uint64_t{3} * options_.block_size, .may_fail = may_fail});
    model.SetBelow(*child_);
    if (may_fail) MakeFaults();
    for (int wave = 0; wave < 20; ++wave) {
      ASSERT_NO_FATAL_FAILURE(model.RunWave());
      if (random_.OneIn(4)) Exchange(model);
      if (random_.OneIn(4)) base_.clock.Advance(std::chrono::seconds(1));
    }
    child_->SetFault(nullptr);
    scratch_->SetFault(nullptr);
    ASSERT_NO_FATAL_FAILURE(model.Settle());
    ASSERT_NO_FATAL_FAILURE(model.CheckStatus());
    ASSERT_NO_FATAL_FAILURE(model.CheckLayers(*child_));
    ASSERT_TRUE(random_.OneIn(2) ? base_.Finish(cache_->Flush()).ok() : true);
    base_.Finish(cache_->Settle());
    ASSERT_EQ(child_->content(), model.content());
    ASSERT_TRUE(base_.logger.lines.empty());
  }

 private:
  std::unique_ptr<LiveFilter<CacheOptions>> Make() {
    return NewCache(*child_, base_.environment(), "fast", *scratch_, *state_, options_);
  }
  void MakeFaults() {
    const auto fault = [this](NodeCall, ByteRange) {
      return random_.OneIn(10) ? absl::InternalError("by chance") : absl::OkStatus();
    };
    child_->SetFault(fault);
    scratch_->SetFault(fault);
  }
  // As the stack of filters does: the one before settles while requests reach the next.
  void Exchange(DiskModel& model) {
    auto next = Make();
    next->TakeOver(*cache_);
    model.SetNode(*next);
    const Task<void> settled = cache_->Settle();
    ASSERT_NO_FATAL_FAILURE(model.RunWave());
    ASSERT_TRUE(settled.done());
    cache_ = std::move(next);
  }

  RandomSource& random_;
  FilterBase base_;
  CacheOptions options_;
  std::unique_ptr<MemoryNode> child_;
  std::unique_ptr<MemoryNode> scratch_;
  std::vector<std::byte> content_;
  std::unique_ptr<CacheState> state_;
  std::unique_ptr<LiveFilter<CacheOptions>> cache_;
};

TEST(CachePropertyTest, ContentIsAsWithoutItAndWhatWasFlushedIsBelow) {
  RandomSource random;
  for (int round = 0; round < 150; ++round) {
    CacheRound one(random);
    ASSERT_NO_FATAL_FAILURE(one.Run()) << "round " << round;
  }
}

}  // namespace
}  // namespace gabion::filters
