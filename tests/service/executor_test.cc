#include "service/executor.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <future>
#include <vector>

namespace gabion::service {
namespace {

using Lane = Executor::Lane;
using Taken = Executor::Taken;

// Work that ends when the test says so.
class Gate {
 public:
  Executor::Work Work() {
    return [opened = opened_, &began = began_] {
      ++began;
      began.notify_all();
      opened.wait();
    };
  }
  void Await(int count) {
    for (int began = began_; began < count; began = began_) began_.wait(began);
  }
  void Open() { open_.set_value(); }
  int began() const { return began_; }

 private:
  std::promise<void> open_;
  std::shared_future<void> opened_ = open_.get_future().share();
  std::atomic<int> began_ = 0;
};

TEST(ExecutorTest, OneThreadKeepsTheOrderOverBothLanes) {
  Executor executor(1);
  Gate gate;
  ASSERT_TRUE(executor.Run(gate.Work()));
  std::vector<int> order;
  for (int i = 0; i < 10; ++i) {
    const Lane lane = i % 3 == 0 ? Lane::kChanges : Lane::kReads;
    EXPECT_EQ(executor.Offer(lane, [&order, i] { order.push_back(i); }), Taken::kYes);
  }
  gate.Open();
  executor.Stop();
  EXPECT_EQ(order, (std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}));
}

TEST(ExecutorTest, ChangesThatWaitLeaveAQuarterOfTheThreadsToTheRest) {
  for (const int threads : {2, 4, 8, 32}) {
    Gate gate;
    Executor executor(threads);
    for (int i = 0; i < 2 * threads; ++i) {
      ASSERT_EQ(executor.Offer(Lane::kChanges, gate.Work()), Taken::kYes);
    }
    const int most = threads - std::max(1, threads / 4);
    gate.Await(most);
    for (int i = 0; i < 10; ++i) {  // or ctest ends the test
      std::promise<void> read;
      ASSERT_EQ(executor.Offer(Lane::kReads, [&read] { read.set_value(); }), Taken::kYes);
      read.get_future().wait();
    }
    EXPECT_EQ(gate.began(), most);
    gate.Open();
    executor.Stop();
    EXPECT_EQ(gate.began(), 2 * threads);
  }
}

TEST(ExecutorTest, NewWorkIsRefusedBeyondItsQueueButWhatHasBegunGoesOn) {
  Gate gate;
  Executor executor(1, 2);
  ASSERT_TRUE(executor.Run(gate.Work()));
  gate.Await(1);
  std::atomic<int> done = 0;
  const auto work = [&done] { ++done; };
  for (const Lane lane : {Lane::kReads, Lane::kChanges}) {
    EXPECT_EQ(executor.Offer(lane, work), Taken::kYes);
    EXPECT_EQ(executor.Offer(lane, work), Taken::kYes);
    EXPECT_EQ(executor.Offer(lane, work), Taken::kFull);
  }
  EXPECT_TRUE(executor.Run(work));
  gate.Open();
  executor.Stop();
  EXPECT_EQ(done, 5);
}

TEST(ExecutorTest, StoppedItTakesNothing) {
  Executor executor(2);
  executor.Stop();
  EXPECT_FALSE(executor.Run([] {}));
  EXPECT_EQ(executor.Offer(Lane::kChanges, [] {}), Taken::kStopped);
}

}  // namespace
}  // namespace gabion::service
