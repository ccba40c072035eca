// Throttles of one group on several threads, as on several shards.
#include <gtest/gtest.h>

#include <atomic>
#include <barrier>
#include <chrono>
#include <map>
#include <memory>
#include <thread>
#include <vector>

#include "tests/engine/filters/throttle_fixture.h"

namespace gabion::filters {
namespace {

using runtime::Duration;
using runtime::Instant;

constexpr int kThreads = 4;
constexpr Duration kStep = std::chrono::milliseconds(1);
constexpr uint64_t kMB = 1'000'000;

// A thread's clock; all show the same time, which moves on when every thread has run.
class SteppedClock final : public runtime::Clock {
 public:
  SteppedClock(runtime::ReadyQueue& ready, const std::atomic<int64_t>& now)
      : ready_(ready), now_(now) {}

  Instant Now() override { return Instant{Duration(now_.load())}; }
  void Schedule(Timer& timer, Instant deadline) override {
    Cancel(timer);
    timers_.emplace(deadline, &timer);
  }
  void Cancel(Timer& timer) override {
    std::erase_if(timers_, [&timer](const auto& entry) { return entry.second == &timer; });
  }
  void FireDue() {
    while (!timers_.empty() && timers_.begin()->first <= Now()) {
      Timer* const timer = timers_.begin()->second;
      timers_.erase(timers_.begin());
      timer->Fire();
      ready_.RunUntilIdle();
    }
  }

 private:
  runtime::ReadyQueue& ready() override { return ready_; }

  runtime::ReadyQueue& ready_;
  const std::atomic<int64_t>& now_;
  std::multimap<Instant, Timer*> timers_;
};

struct Load {
  uint64_t bytes;
  int depth;
};

class ThrottleThreadsTest : public testing::Test {
 protected:
  // One thread for each load; runs them for `seconds`, and `every_step` on the first one.
  template <typename EveryStep>
  void RunThreads(const std::vector<Load>& loads, int seconds, EveryStep every_step) {
    const int64_t end = now_ + std::chrono::nanoseconds(std::chrono::seconds(seconds)).count();
    read_.assign(loads.size(), 0);
    std::barrier barrier(static_cast<std::ptrdiff_t>(loads.size()),
                         [this]() noexcept { now_ += kStep.count(); });
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < loads.size(); ++i) {
      threads.emplace_back([&, i] {
        runtime::ReadyQueue ready;
        SteppedClock clock(ready, now_);
        ThrottledDisk disk(ready, clock, *group_);
        disk.StartReaders(loads[i].bytes, loads[i].depth);
        while (now_ < end) {
          clock.FireDue();
          if (i == 0) every_step();
          barrier.arrive_and_wait();
        }
        read_[i] = disk.read;
        disk.Stop();
        barrier.arrive_and_wait();
        disk.node->Configure({});
        ready.RunUntilIdle();
        EXPECT_EQ(disk.clients(), 0u);
      });
    }
    for (std::thread& thread : threads) thread.join();
  }

  double Sum() const {
    double sum = 0;
    for (const uint64_t bytes : read_) sum += static_cast<double>(bytes);
    return sum;
  }

  std::unique_ptr<ThrottleGroup> group_ = NewThrottleGroup({});
  std::atomic<int64_t> now_ = 0;
  std::vector<uint64_t> read_;  // by each thread
};

TEST_F(ThrottleThreadsTest, TogetherTheyGetTheRate) {
  group_->Configure({.read_bytes = {.per_second = 200 * kMB}});
  const std::vector<Load> loads(kThreads, Load{16 * kKiB, 8});
  RunThreads(loads, 5, [] {});
  EXPECT_NEAR(Sum(), 1000e6, 50e6);
}

TEST_F(ThrottleThreadsTest, EachGetsTheSame) {
  group_->Configure({.read_bytes = {.per_second = 100 * kMB}});
  RunThreads({{4 * kKiB, 16}, {64 * kKiB, 8}, {kMiB, 4}}, 10, [] {});
  EXPECT_NEAR(Sum(), 1000e6, 50e6);
  for (const uint64_t bytes : read_) EXPECT_NEAR(static_cast<double>(bytes), 333e6, 50e6);
}

TEST_F(ThrottleThreadsTest, LimitsChangeWhileAllDrawOnThem) {
  const ThrottleOptions slow{.read_bytes = {.per_second = 20 * kMB}, .total_operations = {50'000}};
  const ThrottleOptions fast{.total_bytes = {.per_second = 40 * kMB}};
  group_->Configure(fast);
  int step = 0;
  const std::vector<Load> loads(kThreads, Load{16 * kKiB, 4});
  RunThreads(loads, 4, [&] { group_->Configure(++step / 200 % 2 == 0 ? fast : slow); });
  // Twenty changes, each of which begins with a full budget; nobody told the throttles, which
  // notice by themselves.
  EXPECT_NEAR(Sum(), 120e6 + 20 * 3e6, 20e6);
}

}  // namespace
}  // namespace gabion::filters
