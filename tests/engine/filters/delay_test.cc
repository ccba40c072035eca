#include "engine/filters/delay.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/runtime/task_set.h"
#include "tests/support/manual_clock.h"
#include "tests/support/memory_node.h"

namespace gabion::filters {
namespace {

using block::ExtentList;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using test::NodeCall;
using testing::ElementsAre;

class DelayTest : public testing::Test {
 protected:
  ~DelayTest() override { clock_.Advance(std::chrono::hours(1)); }

  void Make(const DelayOptions& options, const std::string& where = "delay") {
    node_ = NewDelay(disk_, Environment{ready_, clock_, NullLogger(), where}, options);
  }
  // Starts a read; `id` is in done_ when it is done.
  void Start(int id) { tasks_.Add(Read(id)); }

  runtime::ReadyQueue ready_;
  test::ManualClock clock_{ready_};
  test::MemoryNode disk_{{.size = 65536}};
  std::unique_ptr<LiveFilter<DelayOptions>> node_;
  std::vector<int> done_;
  std::vector<runtime::Instant> times_;  // when each was done

 private:
  Task<void> Read(int id) {
    std::vector<std::byte> buffer(512);
    absl::Status status = co_await node_->Read(Range(0, 512), buffer);
    EXPECT_TRUE(status.ok());
    done_.push_back(id);
    times_.push_back(clock_.Now());
  }

  runtime::TaskSet tasks_{ready_};
};

TEST_F(DelayTest, EachKindWaitsItsOwnTime) {
  Make({.read = milliseconds(1),
        .write = milliseconds(2),
        .zero = milliseconds(3),
        .discard = milliseconds(4),
        .flush = milliseconds(5),
        .block_status = milliseconds(6)});
  std::vector<std::byte> buffer(512);
  Task<absl::Status> read = node_->Read(Range(0, 512), buffer);
  Task<absl::Status> write = node_->Write(Range(0, 512), buffer, {.durable = true});
  Task<absl::Status> zero = node_->Zero(Range(512, 512), {.may_unmap = false});
  Task<absl::Status> discard = node_->Discard(Range(1024, 512));
  Task<absl::Status> flush = node_->Flush();
  Task<absl::StatusOr<ExtentList>> status = node_->BlockStatus(Range(512, 512), 1);
  const std::vector<NodeCall> expected = {NodeCall::kRead,  NodeCall::kWrite,
                                          NodeCall::kZero,  NodeCall::kDiscard,
                                          NodeCall::kFlush, NodeCall::kBlockStatus};
  for (std::size_t i = 0; i < expected.size(); ++i) {
    clock_.Advance(milliseconds(1) - nanoseconds(1));
    EXPECT_EQ(disk_.calls().size(), i);
    clock_.Advance(nanoseconds(1));
    ASSERT_EQ(disk_.calls().size(), i + 1);
    EXPECT_EQ(disk_.calls()[i].call, expected[i]);
  }
  EXPECT_TRUE(read.Take().ok());
  EXPECT_TRUE(write.Take().ok());
  EXPECT_TRUE(zero.Take().ok());
  EXPECT_TRUE(discard.Take().ok());
  EXPECT_TRUE(flush.Take().ok());
  absl::StatusOr<ExtentList> extents = status.Take();
  ASSERT_TRUE(extents.ok());
  EXPECT_EQ((*extents)[0].kind, block::ExtentKind::kZeroAllocated);
  EXPECT_TRUE(disk_.calls()[1].durable);
}

TEST_F(DelayTest, WhatHasNoDelayDoesNotWaitEvenWithJitter) {
  Make({.write = milliseconds(1), .jitter = milliseconds(5)});
  Start(1);
  EXPECT_THAT(done_, ElementsAre(1));
  EXPECT_TRUE(node_->Flush().Take().ok());
  EXPECT_TRUE(node_->Zero(Range(0, 512), {}).Take().ok());
  EXPECT_TRUE(node_->Discard(Range(0, 512)).Take().ok());
  EXPECT_TRUE(node_->Cache(Range(0, 512)).Take().ok());
  EXPECT_TRUE(node_->BlockStatus(Range(0, 512), 1).Take().ok());
  EXPECT_TRUE(node_->Close().Take().ok());
}

TEST_F(DelayTest, RequestsWaitSideBySide) {
  Make({.read = milliseconds(10)});
  for (int i = 0; i < 100; ++i) Start(i);
  clock_.Advance(milliseconds(5));
  Start(100);
  clock_.Advance(milliseconds(5));
  EXPECT_EQ(done_.size(), 100u);
  clock_.Advance(milliseconds(5));
  EXPECT_EQ(done_.size(), 101u);
}

TEST_F(DelayTest, JitterIsEvenAndDiffersFromFilterToFilter) {
  Make({.read = milliseconds(10), .jitter = milliseconds(20)}, "a");
  for (int i = 0; i < 1000; ++i) Start(i);
  clock_.Advance(milliseconds(10) - nanoseconds(1));
  EXPECT_TRUE(done_.empty());
  int earlier = 0;
  for (const int quarter : {1, 2, 3, 4}) {
    clock_.Advance(milliseconds(5));
    const int so_far = static_cast<int>(done_.size());
    EXPECT_NEAR(so_far - earlier, 250, 75) << quarter;
    earlier = so_far;
  }
  clock_.Advance(nanoseconds(1));
  EXPECT_EQ(done_.size(), 1000u);
  const std::vector<int> first_order = std::exchange(done_, {});
  Make({.read = milliseconds(10), .jitter = milliseconds(20)}, "b");
  for (int i = 0; i < 1000; ++i) Start(i);
  clock_.Advance(milliseconds(30));
  EXPECT_EQ(done_.size(), 1000u);
  EXPECT_NE(done_, first_order);
}

TEST_F(DelayTest, ShorterDelaysReachThoseThatWait) {
  Make({.read = std::chrono::minutes(1)});
  Start(1);
  clock_.Advance(milliseconds(60));
  Start(2);
  clock_.Advance(milliseconds(40));
  node_->Configure({.read = milliseconds(100)});
  ready_.RunUntilIdle();
  EXPECT_THAT(done_, ElementsAre(1));
  clock_.Advance(milliseconds(59));
  EXPECT_THAT(done_, ElementsAre(1));
  clock_.Advance(milliseconds(1));
  EXPECT_THAT(done_, ElementsAre(1, 2));
}

TEST_F(DelayTest, NoDelayAnyMoreLetsAllGoInTheirOrder) {
  Make({.read = std::chrono::minutes(1), .jitter = std::chrono::minutes(1)});
  for (int i = 0; i < 10; ++i) Start(i);
  node_->Configure({});
  ready_.RunUntilIdle();
  EXPECT_THAT(done_, ElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 8, 9));
  EXPECT_EQ(clock_.pending(), 0u);
}

TEST_F(DelayTest, LongerDelaysReachThoseThatWait) {
  Make({.read = milliseconds(10)});
  Start(1);
  clock_.Advance(milliseconds(5));
  node_->Configure({.read = milliseconds(50)});
  clock_.Advance(milliseconds(44));
  EXPECT_TRUE(done_.empty());
  clock_.Advance(milliseconds(1));
  EXPECT_THAT(done_, ElementsAre(1));
}

TEST_F(DelayTest, ConfigureBetweenTheEndOfAWaitAndTheRequestChangesNothingForIt) {
  Make({.read = milliseconds(10)});
  Start(1);
  node_->Configure({});  // the wait has ended, and the request has not run yet
  node_->Configure({.read = std::chrono::minutes(1)});
  ready_.RunUntilIdle();
  EXPECT_THAT(done_, ElementsAre(1));
}

TEST_F(DelayTest, ErrorsOfTheDiskPassAsTheyAre) {
  Make({.flush = milliseconds(10)});
  disk_.SetFault([](NodeCall, ByteRange) { return absl::DataLossError("lost"); });
  Task<absl::Status> flush = node_->Flush();
  clock_.Advance(milliseconds(10));
  EXPECT_EQ(flush.Take(), absl::DataLossError("lost"));
}

TEST_F(DelayTest, TellsHowManyWait) {
  Make({.read = milliseconds(10)});
  for (int i = 0; i < 3; ++i) Start(i);
  clock_.Advance(milliseconds(10));
  Start(3);
  const Statistics statistics = node_->GetStatistics();
  ASSERT_EQ(statistics.counters.size(), 2u);
  EXPECT_EQ(statistics.counters[0].name, "delayed");
  EXPECT_EQ(statistics.counters[0].value, 4u);
  EXPECT_EQ(statistics.counters[1].name, "waiting");
  EXPECT_EQ(statistics.counters[1].value, 1u);
}

}  // namespace
}  // namespace gabion::filters
