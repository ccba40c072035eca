#include "engine/runtime/task.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/base/status_macros.h"
#include "engine/runtime/event.h"
#include "engine/runtime/ready_queue.h"
#include "engine/runtime/task_set.h"
#include "engine/runtime/turnstile.h"

namespace gabion::runtime {
namespace {

using Log = std::vector<std::string>;

Task<int> Immediate(int value) { co_return value; }

Task<int> Later(OneShot<int>& event) {
  const int value = co_await event;
  co_return value;
}

Task<int> Sum(OneShot<int>& a, OneShot<int>& b) {
  Task<int> first = Later(a);  // both start now
  Task<int> second = Later(b);
  const int x = co_await first;
  const int y = co_await second;
  co_return x + y;
}

TEST(TaskTest, RunsAtOnceUpToItsFirstWait) {
  ReadyQueue ready;
  OneShot<int> event(ready);
  Task<int> task = Later(event);
  EXPECT_FALSE(task.done());
  event.Set(7);
  EXPECT_FALSE(task.done()) << "the setter must not be re-entered by the waiter";
  ready.RunUntilIdle();
  ASSERT_TRUE(task.done());
  EXPECT_EQ(task.Take(), 7);
}

TEST(TaskTest, ReadyTaskIsDoneWithoutAFrame) {
  Task<int> task(5);
  EXPECT_TRUE(task.done());
  EXPECT_EQ(task.Take(), 5);
  EXPECT_TRUE(Task<void>().done());
}

TEST(TaskTest, AwaitsChildrenInAnyOrderOfCompletion) {
  ReadyQueue ready;
  OneShot<int> a(ready);
  OneShot<int> b(ready);
  Task<int> sum = Sum(a, b);
  b.Set(2);
  ready.RunUntilIdle();
  EXPECT_FALSE(sum.done());
  a.Set(40);
  ready.RunUntilIdle();
  ASSERT_TRUE(sum.done());
  EXPECT_EQ(sum.Take(), 42);
}

Task<std::unique_ptr<int>> MakeUnique(OneShot<int>& event) {
  const int value = co_await event;
  co_return std::make_unique<int>(value);
}

TEST(TaskTest, CarriesMoveOnlyResults) {
  ReadyQueue ready;
  OneShot<int> event(ready);
  Task<std::unique_ptr<int>> task = MakeUnique(event);
  event.Set(3);
  ready.RunUntilIdle();
  EXPECT_EQ(*task.Take(), 3);
}

Task<absl::StatusOr<int>> Half(int value) {
  if (value % 2 != 0) co_return absl::InvalidArgumentError("odd");
  co_return value / 2;
}

Task<absl::Status> HalveTwice(int value, int& result) {
  CO_ASSIGN_OR_RETURN(const int once, co_await Half(value));
  CO_ASSIGN_OR_RETURN(result, co_await Half(once));
  co_return absl::OkStatus();
}

TEST(TaskTest, MacrosReturnTheFirstError) {
  int result = 0;
  EXPECT_TRUE(HalveTwice(12, result).Take().ok());
  EXPECT_EQ(result, 3);
  EXPECT_EQ(HalveTwice(6, result).Take().code(), absl::StatusCode::kInvalidArgument);
}

// Counts living copies: GCC 12 destroys some unnamed temporaries in co_await expressions twice.
struct Tracked {
  explicit Tracked(int& living) : living_(&living) { ++*living_; }
  Tracked(const Tracked& other) : living_(other.living_) { ++*living_; }
  Tracked(Tracked&& other) noexcept : living_(other.living_) { ++*living_; }
  Tracked& operator=(const Tracked&) = default;
  ~Tracked() { --*living_; }
  int* living_;
};

Task<int> Consume(Tracked tracked, OneShot<int>& event) {
  const int value = co_await event;
  co_return value + *tracked.living_;
}

Task<int> PassNamed(int& living, OneShot<int>& event) {
  Tracked tracked(living);
  const int value = co_await Consume(std::move(tracked), event);
  co_return value;
}

TEST(TaskTest, NamedParametersAreDestroyedExactlyOnce) {
  ReadyQueue ready;
  int living = 0;
  {
    OneShot<int> event(ready);
    Task<int> task = PassNamed(living, event);
    EXPECT_GT(living, 0);
    event.Set(1);
    ready.RunUntilIdle();
    ASSERT_TRUE(task.done());
  }
  EXPECT_EQ(living, 0);
}

Task<int> DeepChild(ReadyQueue& ready, int depth) {
  if (depth == 0) {
    co_await ready.Yield();
    co_return 0;
  }
  const int below = co_await DeepChild(ready, depth - 1);
  co_return below + 1;
}

TEST(TaskTest, ResultsTravelUpThroughManyParents) {
  ReadyQueue ready;
  Task<int> task = DeepChild(ready, 1000);
  EXPECT_FALSE(task.done());
  ready.RunUntilIdle();
  ASSERT_TRUE(task.done());
  EXPECT_EQ(task.Take(), 1000);
}

Task<int> Loop(ReadyQueue& ready, int rounds) {
  int sum = 0;
  for (int i = 0; i < rounds; ++i) {
    const int one = co_await DeepChild(ready, 1);
    const int nothing = co_await Immediate(0);
    sum += one + nothing;
  }
  co_return sum;
}

TEST(TaskTest, ALongLoopOfWaitsDoesNotGrowTheStack) {
  ReadyQueue ready;
  Task<int> task = Loop(ready, 300000);
  ready.RunUntilIdle();
  ASSERT_TRUE(task.done());
  EXPECT_EQ(task.Take(), 300000);
}

TEST(TaskDeathTest, DestroyingAnUnfinishedTaskIsABug) {
  EXPECT_DEATH(
      {
        ReadyQueue ready;
        OneShot<int> event(ready);
        Task<int> task = Later(event);
      },
      "finished");
}

Task<void> Append(Log& log, std::string text, OneShot<int>& event) {
  const int value = co_await event;
  log.push_back(text + std::to_string(value));
}

Task<void> DrainThenLog(TaskSet& set, Log& log) {
  co_await set.Drain();
  log.push_back("drained");
}

TEST(TaskSetTest, DrainWaitsForEveryTask) {
  ReadyQueue ready;
  Log log;
  OneShot<int> a(ready);
  OneShot<int> b(ready);
  TaskSet set(ready);
  set.Add(Append(log, "a", a));
  set.Add(Append(log, "b", b));
  EXPECT_EQ(set.running(), 2u);
  Task<void> drain = DrainThenLog(set, log);
  b.Set(2);
  ready.RunUntilIdle();
  EXPECT_EQ(set.running(), 1u);
  a.Set(1);
  ready.RunUntilIdle();
  EXPECT_TRUE(drain.done());
  EXPECT_EQ(log, (Log{"b2", "a1", "drained"}));
}

TEST(TaskSetTest, FinishedTasksAreNotKept) {
  ReadyQueue ready;
  TaskSet set(ready);
  set.Add(Task<void>());
  EXPECT_EQ(set.running(), 0u);
}

Task<void> PassThrough(Turnstile& turnstile, Log& log, std::string name, OneShot<int>& leave) {
  const Turnstile::Pass pass = co_await turnstile.Enter();
  log.push_back(name + " in");
  const int ignored = co_await leave;
  log.push_back(name + " out" + std::to_string(ignored));
}

Task<void> DrainTurnstile(Turnstile& turnstile, Log& log) {
  co_await turnstile.Drain();
  log.push_back("empty");
}

TEST(TurnstileTest, HeldNewcomersEnterInOrderAfterTheChange) {
  ReadyQueue ready;
  Log log;
  Turnstile turnstile(ready);
  OneShot<int> first(ready);
  OneShot<int> others(ready);
  OneShot<int> last(ready);
  Task<void> a = PassThrough(turnstile, log, "a", first);
  turnstile.Hold();
  Task<void> drain = DrainTurnstile(turnstile, log);
  Task<void> b = PassThrough(turnstile, log, "b", others);
  Task<void> c = PassThrough(turnstile, log, "c", last);
  EXPECT_FALSE(drain.done());
  first.Set(0);
  ready.RunUntilIdle();
  EXPECT_TRUE(drain.done());
  turnstile.Resume();
  ready.RunUntilIdle();
  others.Set(0);
  last.Set(0);
  ready.RunUntilIdle();
  EXPECT_EQ(log, (Log{"a in", "a out0", "empty", "b in", "c in", "b out0", "c out0"}));
  EXPECT_EQ(turnstile.inside(), 0u);
}

std::size_t ChooseLast(void*, std::size_t count) { return count - 1; }

Task<void> YieldThenLog(ReadyQueue& ready, Log& log, std::string name) {
  co_await ready.Yield();
  log.push_back(name);
}

TEST(ReadyQueueTest, ASimulationChoosesTheOrder) {
  ReadyQueue ready;
  ready.SetChooser(&ChooseLast, nullptr);
  Log log;
  Task<void> a = YieldThenLog(ready, log, "a");
  Task<void> b = YieldThenLog(ready, log, "b");
  ready.RunUntilIdle();
  EXPECT_EQ(log, (Log{"b", "a"}));
}

}  // namespace
}  // namespace gabion::runtime
