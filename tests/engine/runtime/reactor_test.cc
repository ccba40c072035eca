#include "engine/runtime/reactor.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <thread>
#include <vector>

#include "engine/runtime/buffer_pool.h"
#include "engine/runtime/event.h"
#include "engine/runtime/mailbox.h"
#include "engine/runtime/shard.h"

namespace gabion::runtime {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

Task<void> SleepThenMark(Clock& clock, Instant until, std::vector<int>& order, int mark) {
  co_await clock.SleepUntil(until);
  order.push_back(mark);
}

TEST(ReactorTest, SleepersWakeInTheOrderOfTheirDeadlines) {
  Reactor reactor({.poll_before_sleep = microseconds(0)});
  std::vector<int> order;
  const Instant start = reactor.clock().Now();
  Task<void> late = SleepThenMark(reactor.clock(), start + milliseconds(60), order, 2);
  Task<void> early = SleepThenMark(reactor.clock(), start + milliseconds(20), order, 1);
  while (!late.done() || !early.done()) reactor.RunTurn(true);
  EXPECT_EQ(order, (std::vector<int>{1, 2}));
  EXPECT_GE(reactor.clock().Now() - start, milliseconds(60));
}

class CountingTimer final : public Clock::Timer {
 public:
  void Fire() override { ++fired; }
  int fired = 0;
};

TEST(ReactorTest, ACancelledTimerDoesNotFire) {
  Reactor reactor({});
  CountingTimer cancelled;
  CountingTimer moved;
  Clock& clock = reactor.clock();
  clock.Schedule(cancelled, clock.Now());
  clock.Schedule(moved, clock.Now() + std::chrono::hours(1));
  clock.Schedule(moved, clock.Now());
  clock.Cancel(cancelled);
  clock.Cancel(cancelled);
  while (moved.fired == 0) reactor.RunTurn(true);
  EXPECT_EQ(cancelled.fired, 0);
  EXPECT_EQ(moved.fired, 1);
}

class CountingHook final : public TurnHook {
 public:
  void OnTurnEnd() override { ++calls; }
  int calls = 0;
};

TEST(ReactorTest, AHookRunsOnceAtTheEndOfTheTurn) {
  Reactor reactor({});
  CountingHook hook;
  reactor.AtTurnEnd(hook);
  EXPECT_EQ(hook.calls, 0);
  EXPECT_TRUE(reactor.RunTurn(false));
  EXPECT_FALSE(reactor.RunTurn(false));
  EXPECT_EQ(hook.calls, 1);
}

TEST(ShardTest, MessagesOfOneThreadRunInOrderOnTheShard) {
  for (const auto poll : {microseconds(0), microseconds(50)}) {
    Shard shard("test", {.reactor = {.poll_before_sleep = poll}});
    constexpr int kMessages = 20000;
    std::vector<int> seen;
    std::promise<std::thread::id> finished;
    for (int i = 0; i < kMessages; ++i) shard.Post([&seen, i] { seen.push_back(i); });
    shard.Post([&finished] { finished.set_value(std::this_thread::get_id()); });
    EXPECT_NE(finished.get_future().get(), std::this_thread::get_id());
    ASSERT_EQ(seen.size(), static_cast<std::size_t>(kMessages));
    for (int i = 0; i < kMessages; ++i) EXPECT_EQ(seen[static_cast<std::size_t>(i)], i);
    shard.Stop();
  }
}

TEST(ShardTest, EveryPostWakesASleepingShard) {
  Shard shard("test", {.reactor = {.poll_before_sleep = microseconds(0)}});
  // Each round trip lets the shard fall asleep; a lost wake-up would hang here.
  for (int i = 0; i < 3000; ++i) {
    std::promise<void> done;
    shard.Post([&done] { done.set_value(); });
    done.get_future().get();
  }
  shard.Stop();
}

TEST(ShardTest, ManyThreadsCanPost) {
  Shard shard("test", {});
  std::atomic<int> sum = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 5000; ++i) shard.Post([&sum] { ++sum; });
    });
  }
  for (std::thread& thread : threads) thread.join();
  shard.Stop();  // runs after everything that was posted before
  EXPECT_EQ(sum, 20000);
}

TEST(BufferPoolTest, BuffersAreAlignedAndReused) {
  BufferPool pool(ByteCount{kMiB});
  std::byte* first = nullptr;
  {
    Buffer buffer = pool.Allocate(5000);
    first = buffer.bytes().data();
    EXPECT_EQ(reinterpret_cast<uintptr_t>(first) % kBufferAlignment, 0u);
    EXPECT_EQ(buffer.size(), 5000u);
  }
  Buffer same = pool.Allocate(8192);
  EXPECT_EQ(same.bytes().data(), first);
  Buffer other = pool.Allocate(4096);
  EXPECT_NE(other.bytes().data(), first);
  Buffer large = pool.Allocate(40 * kMiB);
  EXPECT_EQ(large.size(), 40 * kMiB);
  Buffer empty = pool.Allocate(0);
  EXPECT_EQ(empty.size(), 0u);
}

}  // namespace
}  // namespace gabion::runtime
