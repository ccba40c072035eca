#include "service/timers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <memory>
#include <thread>
#include <vector>

namespace gabion::service {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;

TEST(TimersTest, CallsInTheOrderOfTheTimesAndNotBefore) {
  Timers timers;
  std::vector<int> called;
  std::promise<void> done;
  const auto start = Timers::Clock::now();
  timers.After(milliseconds(8), [&] {
    called.push_back(2);
    done.set_value();
  });
  timers.After(milliseconds(2), [&] { called.push_back(1); });
  timers.After(milliseconds(-1), [&] { called.push_back(0); });
  done.get_future().wait();
  EXPECT_GE(Timers::Clock::now() - start, milliseconds(8));
  EXPECT_THAT(called, testing::ElementsAre(0, 1, 2));
}

TEST(TimersTest, WhatIsCancelledIsNotCalled) {
  Timers timers;
  const uint64_t id = timers.After(hours(1), [] { ADD_FAILURE(); });
  EXPECT_NE(id, 0u);
  EXPECT_TRUE(timers.Cancel(id));
  EXPECT_FALSE(timers.Cancel(id));
  EXPECT_FALSE(timers.Cancel(0));
}

TEST(TimersTest, WhatHasBeenCalledCannotBeCancelled) {
  Timers timers;
  std::promise<void> done;
  const uint64_t id = timers.After(milliseconds(0), [&] { done.set_value(); });
  done.get_future().wait();
  EXPECT_FALSE(timers.Cancel(id));
}

TEST(TimersTest, ACallMayUseTheTimers) {
  Timers timers;
  std::promise<void> done;
  const uint64_t other = timers.After(hours(1), [] { ADD_FAILURE(); });
  timers.After(milliseconds(0), [&] {
    EXPECT_TRUE(timers.Cancel(other));
    timers.After(milliseconds(0), [&] { done.set_value(); });
  });
  done.get_future().wait();
}

TEST(TimersTest, StopDropsWhatIsDueLaterAndTakesNothingMore) {
  const auto token = std::make_shared<int>();
  Timers timers;
  timers.After(Timers::Clock::duration::max(), [token] { ADD_FAILURE(); });
  timers.Stop();
  EXPECT_EQ(token.use_count(), 1);
  timers.After(milliseconds(0), [token] { ADD_FAILURE(); });
  EXPECT_EQ(token.use_count(), 1);
}

TEST(TimersTest, EachIsCalledOrCancelledNeverBoth) {
  Timers timers;
  constexpr int kCount = 2000;
  std::atomic<int> called = 0;
  int cancelled = 0;
  for (int i = 0; i < kCount; ++i) {
    const uint64_t id = timers.After(milliseconds(0), [&] { ++called; });
    if (timers.Cancel(id)) ++cancelled;
  }
  std::promise<void> done;  // due after all of them
  timers.After(milliseconds(1), [&] { done.set_value(); });
  done.get_future().wait();
  EXPECT_EQ(called + cancelled, kCount);
}

}  // namespace
}  // namespace gabion::service
