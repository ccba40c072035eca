#include "engine/filters/fault.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "engine/block/aligned_node.h"
#include "tests/support/manual_clock.h"
#include "tests/support/memory_node.h"

namespace gabion::filters {
namespace {

using absl::StatusCode;
using test::MemoryNode;
using test::NodeCall;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr OperationSet kReads = Bit(Operation::kRead);

class FaultTest : public testing::Test {
 protected:
  void Make(const FaultOptions& options) {
    state_ = NewFaultState(options);
    node_ = Another(options);
  }
  // One more filter with the same state.
  std::unique_ptr<LiveFilter<FaultOptions>> Another(const FaultOptions& options) {
    return NewFault(disk_, Environment{ready_, clock_, NullLogger(), "exports/a, filter 'bad'"},
                    "bad", options, *state_);
  }

  absl::Status Do(Operation operation, ByteRange range) {
    std::vector<std::byte> buffer(range.length.value);
    switch (operation) {
      case Operation::kRead:
        return node_->Read(range, buffer).Take();
      case Operation::kWrite:
        return node_->Write(range, buffer, {}).Take();
      case Operation::kZero:
        return node_->Zero(range, {}).Take();
      case Operation::kDiscard:
        return node_->Discard(range).Take();
      case Operation::kFlush:
        return node_->Flush().Take();
      case Operation::kCache:
        return node_->Cache(range).Take();
      case Operation::kBlockStatus:
        return node_->BlockStatus(range, 1).Take().status();
    }
    return absl::OkStatus();
  }
  StatusCode Read(ByteRange range = Range(0, 512)) { return Do(Operation::kRead, range).code(); }
  // The codes of so many reads.
  std::vector<StatusCode> Reads(int count) {
    std::vector<StatusCode> codes;
    for (int i = 0; i < count; ++i) codes.push_back(Read());
    return codes;
  }
  std::map<std::string, uint64_t> Counters(const Filter& filter) const {
    std::map<std::string, uint64_t> counters;
    for (const Statistics::Counter& counter : filter.GetStatistics().counters) {
      counters[counter.name] = counter.value;
    }
    return counters;
  }

  runtime::ReadyQueue ready_;
  test::ManualClock clock_{ready_};
  MemoryNode disk_{{.size = 65536 + 100}};
  std::unique_ptr<FaultState> state_;
  std::unique_ptr<LiveFilter<FaultOptions>> node_;
};

constexpr Operation kEach[] = {Operation::kRead,       Operation::kWrite, Operation::kZero,
                               Operation::kDiscard,    Operation::kFlush, Operation::kCache,
                               Operation::kBlockStatus};

TEST_F(FaultTest, ARuleHitsTheKindsItNamesAndTheyDoNotReachTheDisk) {
  for (const Operation hit : kEach) {
    Make({.rules = {{.operations = Bit(hit), .error = StatusCode::kDataLoss}}});
    disk_.ClearCalls();
    for (const Operation operation : kEach) {
      const StatusCode expected = operation == hit ? StatusCode::kDataLoss : StatusCode::kOk;
      EXPECT_EQ(Do(operation, Range(0, 512)).code(), expected);
    }
    EXPECT_EQ(disk_.calls().size(), 6u);
  }
}

TEST_F(FaultTest, ErrorsSayWhichRuleOfWhichEntryMadeThem) {
  Make({.rules = {{.operations = Bit(Operation::kWrite)},
                  {.operations = Bit(Operation::kFlush)},
                  {.operations = kReads, .error = StatusCode::kUnavailable}}});
  EXPECT_EQ(Do(Operation::kRead, Range(0, 512)),
            absl::UnavailableError("exports/a, filter 'bad': injected error (rule 2)"));
}

TEST_F(FaultTest, ARangeIsHitByWhatTouchesIt) {
  Make({.rules = {{.operations = OperationSet{kAllOperations}, .range = Range(1000, 10)}}});
  const std::pair<ByteRange, bool> cases[] = {{Range(0, 1000), false},    {Range(0, 1001), true},
                                              {Range(1000, 1), true},     {Range(1009, 1), true},
                                              {Range(1010, 5), false},    {Range(500, 2000), true},
                                              {Range(1010, 54000), false}};
  for (const auto& [range, hit] : cases) {
    for (const Operation operation : kEach) {
      const bool expected = hit || operation == Operation::kFlush;
      EXPECT_EQ(Do(operation, range).ok(), !expected)
          << range.offset.value << " " << static_cast<int>(operation);
    }
  }
}

TEST_F(FaultTest, ARangeMayReachPastEveryEnd) {
  Make({.rules = {{.operations = kReads, .range = Range(65536, ~uint64_t{0})}}});
  EXPECT_EQ(Read(Range(0, 65536)), StatusCode::kOk);
  EXPECT_EQ(Read(Range(65635, 1)), StatusCode::kInternal);
}

TEST_F(FaultTest, EmptyRequestsPass) {
  Make({.rules = {{}}});
  EXPECT_TRUE(Do(Operation::kRead, Range(0, 0)).ok());
  EXPECT_TRUE(Do(Operation::kWrite, Range(100, 0)).ok());
}

TEST_F(FaultTest, ARuleBeginsAfterItsSkipsAndIsSpentAfterItsHits) {
  Make({.rules = {{.max_hits = 2, .skip_hits = 3}}});
  constexpr StatusCode kGood = StatusCode::kOk;
  constexpr StatusCode kBad = StatusCode::kInternal;
  EXPECT_THAT(Reads(7), ElementsAre(kGood, kGood, kGood, kBad, kBad, kGood, kGood));
  const auto counters = Counters(*node_);
  EXPECT_EQ(counters.at("rule_0_hits"), 2u);
  EXPECT_EQ(counters.at("rule_0_matches"), 7u);
}

TEST_F(FaultTest, TheFirstRuleThatDecidesDoes) {
  Make({.rules = {{.error = StatusCode::kUnavailable, .max_hits = 1},
                  {.error = StatusCode::kDataLoss, .max_hits = 1, .skip_hits = 1},
                  {.error = StatusCode::kAborted}}});
  EXPECT_THAT(Reads(4), ElementsAre(StatusCode::kUnavailable, StatusCode::kAborted,
                                    StatusCode::kDataLoss, StatusCode::kAborted));
}

TEST_F(FaultTest, ARuleThatPassesKeepsTheOthersOut) {
  Make({.rules = {{.operations = kReads, .max_hits = 2, .pass = true}, {}}});
  EXPECT_THAT(Reads(3), ElementsAre(StatusCode::kOk, StatusCode::kOk, StatusCode::kInternal));
  EXPECT_EQ(Counters(*node_).at("rule_0_hits"), 2u);
  EXPECT_EQ(Counters(*node_).at("rule_1_matches"), 1u);
}

TEST_F(FaultTest, HitsLeadFromStateToState) {
  // A flush arms it, the next write fails and disarms it.
  Make({.rules = {{.operations = Bit(Operation::kFlush), .state = 1, .new_state = 7, .pass = true},
                  {.operations = Bit(Operation::kWrite),
                   .error = StatusCode::kResourceExhausted,
                   .state = 7,
                   .new_state = 1}}});
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(Counters(*node_).at("state"), 1u);
    EXPECT_TRUE(Do(Operation::kWrite, Range(0, 512)).ok());
    EXPECT_TRUE(Do(Operation::kFlush, Range(0, 0)).ok());
    EXPECT_EQ(Counters(*node_).at("state"), 7u);
    EXPECT_EQ(Do(Operation::kWrite, Range(0, 512)).code(), StatusCode::kResourceExhausted);
  }
}

TEST_F(FaultTest, ProbabilityIsAShareOfTheRequestsAndASeedReplaysIt) {
  test::RandomSource random;
  const FaultOptions options{.rules = {{.probability = 0.25}}, .seed = random.Next() | 1};
  Make(options);
  const std::vector<StatusCode> first = Reads(4000);
  EXPECT_NEAR(static_cast<double>(Counters(*node_).at("rule_0_hits")), 1000, 150);
  Make(options);
  EXPECT_EQ(Reads(4000), first);
  Make({.rules = options.rules, .seed = options.seed + 1});
  EXPECT_NE(Reads(4000), first);
}

TEST_F(FaultTest, WithoutASeedEachStateHasItsOwnSequence) {
  const FaultOptions options{.rules = {{.probability = 0.5}}};
  Make(options);
  const std::vector<StatusCode> first = Reads(500);
  Make(options);
  EXPECT_NE(Reads(500), first);
}

TEST_F(FaultTest, WhatIsLongerThanALimitIsRefusedByName) {
  Make({.rules = {{.max_hits = 1, .skip_hits = 4}},
        .max_transfer = 1024,
        .max_zero = 2048,
        .max_discard = 4096});
  const std::pair<Operation, uint64_t> cases[] = {{Operation::kRead, 1024},
                                                  {Operation::kWrite, 1024},
                                                  {Operation::kZero, 2048},
                                                  {Operation::kDiscard, 4096}};
  const std::string names[] = {"max_transfer", "max_transfer", "max_zero", "max_discard"};
  for (int i = 0; i < 4; ++i) {
    const auto& [operation, limit] = cases[i];
    const absl::Status refused = Do(operation, Range(10, limit + 1));
    EXPECT_EQ(refused.code(), StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(refused.message()), HasSubstr(names[i]));
    EXPECT_THAT(std::string(refused.message()), HasSubstr("exports/a, filter 'bad': "));
    EXPECT_EQ(disk_.calls().size(), static_cast<std::size_t>(i));
    EXPECT_TRUE(Do(operation, Range(10, limit)).ok());
  }
  EXPECT_EQ(Counters(*node_).at("refused_too_long"), 4u);
  EXPECT_EQ(Counters(*node_).at("rule_0_matches"), 4u);  // refused ones do not count
  EXPECT_EQ(Read(), StatusCode::kInternal);
}

TEST_F(FaultTest, AlignmentIsRaisedAndNeverLowered) {
  Make({.alignment = 4096});
  EXPECT_EQ(node_->limits().alignment, ByteCount{4096});
  EXPECT_EQ(node_->limits().alignment_from, "bad");
  EXPECT_EQ(node_->limits().size, ByteCount{65536 + 100});
  MemoryNode coarse({.size = 65536, .alignment = 8192, .name = "coarse"});
  const auto above = NewFault(coarse, Environment{ready_, clock_, NullLogger(), "x"}, "bad",
                              {.alignment = 4096}, *state_);
  EXPECT_EQ(above->limits().alignment, ByteCount{8192});
  EXPECT_EQ(above->limits().alignment_from, "coarse");
  Make({});
  EXPECT_EQ(node_->limits().alignment, ByteCount{1});
  EXPECT_EQ(node_->limits().alignment_from, "");
}

TEST_F(FaultTest, AlignmentStaysWhenTheDiskGrowsAndWhenOptionsChange) {
  Make({.alignment = 4096});
  EXPECT_TRUE(node_->Resize(ByteCount{100'000}).Take().ok());
  EXPECT_EQ(node_->limits().size, ByteCount{100'000});
  EXPECT_EQ(node_->limits().alignment, ByteCount{4096});
  node_->Configure({.alignment = 512});
  EXPECT_EQ(node_->limits().alignment, ByteCount{4096});
}

TEST_F(FaultTest, AnAlignedNodeAboveMakesAnyRequestFit) {
  Make({.alignment = 4096});
  block::AlignedNode aligned(*node_, ready_);
  std::vector<std::byte> bytes(3, std::byte{7});
  Task<absl::Status> write = aligned.Write(Range(4095, 3), bytes, {});
  ready_.RunUntilIdle();
  EXPECT_TRUE(write.Take().ok());
  EXPECT_EQ(disk_.content()[4094], std::byte{0});
  EXPECT_EQ(disk_.content()[4095], std::byte{7});
  EXPECT_EQ(disk_.content()[4097], std::byte{7});
  for (const test::CallRecord& call : disk_.calls()) {
    EXPECT_EQ(call.range.offset.value % 4096, 0u);
    EXPECT_EQ(call.range.length.value % 4096, 0u);
  }
}

TEST_F(FaultTest, StatusPassesAsItIs) {
  disk_.SetStatus(Range(100, 50), block::ExtentKind::kZeroAllocated, 1);
  Make({.rules = {{.operations = kReads}}, .alignment = 4096});
  const auto mine = node_->BlockStatus(Range(3, 1000), 10).Take();
  const auto below = disk_.BlockStatus(Range(3, 1000), 10).Take();
  ASSERT_TRUE(mine.ok());
  EXPECT_EQ(*mine, *below);
  EXPECT_EQ(mine->size(), 3u);
}

TEST_F(FaultTest, ConfigureBeginsAnewOnlyIfSomethingDiffers) {
  FaultOptions options{.rules = {{.max_hits = 2, .new_state = 5}}};
  Make(options);
  EXPECT_THAT(Reads(3), ElementsAre(StatusCode::kInternal, StatusCode::kInternal, StatusCode::kOk));
  node_->Configure(options);
  state_->Configure(options);
  EXPECT_EQ(Read(), StatusCode::kOk);
  EXPECT_EQ(Counters(*node_).at("state"), 5u);
  options.rules[0].error = StatusCode::kAborted;
  options.max_transfer = 256;
  node_->Configure(options);
  EXPECT_EQ(Counters(*node_).at("state"), 1u);
  EXPECT_EQ(Counters(*node_).at("rule_0_matches"), 0u);
  EXPECT_EQ(Read(Range(0, 256)), StatusCode::kAborted);
  EXPECT_EQ(Read(Range(0, 257)), StatusCode::kInvalidArgument);
  node_->Configure({});
  EXPECT_THAT(Reads(2), ElementsAre(StatusCode::kOk, StatusCode::kOk));
}

TEST_F(FaultTest, FiltersWithOneStateCountTogether) {
  const FaultOptions options{.rules = {{.max_hits = 3}}};
  Make(options);
  const auto other = Another(options);
  std::vector<std::byte> buffer(512);
  EXPECT_FALSE(other->Read(Range(0, 512), buffer).Take().ok());
  EXPECT_EQ(Read(), StatusCode::kInternal);
  EXPECT_FALSE(other->Read(Range(0, 512), buffer).Take().ok());
  EXPECT_EQ(Read(), StatusCode::kOk);
  EXPECT_EQ(Counters(*other), Counters(*node_));
}

TEST_F(FaultTest, ARuleHitsAsOftenAsItSaysOnManyThreads) {
  constexpr int kThreads = 4;
  constexpr int kRequests = 20'000;
  const FaultOptions options{.rules = {{.max_hits = 1000, .skip_hits = 500, .new_state = 2},
                                       {.probability = 0.5, .state = 2}}};
  state_ = NewFaultState(options);
  std::atomic<int> failed = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      runtime::ReadyQueue ready;
      test::ManualClock clock(ready);
      MemoryNode disk({.size = 512});
      const auto node =
          NewFault(disk, Environment{ready, clock, NullLogger(), "x"}, "bad", options, *state_);
      for (int j = 0; j < kRequests; ++j) {
        if (!node->Discard(Range(0, 512)).Take().ok()) ++failed;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  node_ = Another(options);
  auto counters = Counters(*node_);
  EXPECT_EQ(counters["rule_0_hits"], 1000u);
  EXPECT_EQ(counters["rule_0_matches"], 80'000u);
  EXPECT_EQ(counters["rule_0_hits"] + counters["rule_1_hits"], static_cast<uint64_t>(failed));
}

}  // namespace
}  // namespace gabion::filters
