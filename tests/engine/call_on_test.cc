#include "engine/call_on.h"

#include <gtest/gtest.h>

#include <latch>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace gabion::engine {
namespace {

using runtime::Shard;

// A shard with a set of tasks that lives on it.
struct Place {
  explicit Place(const std::string& name)
      : shard(name, {}), tasks(std::make_unique<runtime::TaskSet>(shard.reactor().ready())) {}
  ~Place() { shard.Stop(); }

  Shard shard;
  std::unique_ptr<runtime::TaskSet> tasks;
};

class CallOnTest : public ::testing::Test {
 protected:
  // Runs on `away`: says where it ran, after some turns of that shard's loop.
  static Task<std::string> Work(Place* away, std::string text, std::thread::id* ran_on) {
    for (int i = 0; i < 3; ++i) co_await away->shard.reactor().ready().Yield();
    *ran_on = std::this_thread::get_id();
    co_return text + " done";
  }

  static Task<void> Ask(Place* home, Place* away, int calls, std::vector<std::string>* answers,
                        std::latch* done) {
    for (int i = 0; i < calls; ++i) {
      const std::thread::id here = std::this_thread::get_id();
      std::thread::id there;
      const std::string text = "call " + std::to_string(i);
      auto call = [away, &text, &there] { return Work(away, text, &there); };
      std::string answer = co_await CallOn(home->shard, away->shard, *away->tasks, call);
      EXPECT_EQ(std::this_thread::get_id(), here);
      EXPECT_EQ(there == here, home == away);
      answers->push_back(std::move(answer));
    }
    done->count_down();
  }

  Place home_{"home"};
  Place away_{"away"};
};

TEST_F(CallOnTest, RunsThereAndGoesOnHere) {
  std::vector<std::string> answers;
  std::latch done(1);
  home_.shard.Post([&] { home_.tasks->Add(Ask(&home_, &away_, 100, &answers, &done)); });
  done.wait();
  ASSERT_EQ(answers.size(), 100u);
  EXPECT_EQ(answers[99], "call 99 done");
}

TEST_F(CallOnTest, OnTheSameShardNothingIsPosted) {
  std::vector<std::string> answers;
  std::latch done(1);
  home_.shard.Post([&] { home_.tasks->Add(Ask(&home_, &home_, 3, &answers, &done)); });
  done.wait();
  EXPECT_EQ(answers.size(), 3u);
}

TEST_F(CallOnTest, ManyCallsInBothDirectionsAtOnce) {
  constexpr int kEach = 20;
  std::vector<std::vector<std::string>> answers(2 * kEach);
  std::latch done(2 * kEach);
  for (int i = 0; i < kEach; ++i) {
    home_.shard.Post([&, i] { home_.tasks->Add(Ask(&home_, &away_, 50, &answers[i], &done)); });
    away_.shard.Post(
        [&, i] { away_.tasks->Add(Ask(&away_, &home_, 50, &answers[kEach + i], &done)); });
  }
  done.wait();
  for (const auto& list : answers) EXPECT_EQ(list.size(), 50u);
}

// Results that can only be moved travel too.
Task<absl::StatusOr<std::unique_ptr<int>>> MakeInt(int value) {
  absl::StatusOr<std::unique_ptr<int>> made = std::make_unique<int>(value);
  co_return made;
}

Task<void> AskForInt(Place* home, Place* away, int* got, std::latch* done) {
  auto call = [] { return MakeInt(42); };
  absl::StatusOr<std::unique_ptr<int>> made =
      co_await CallOn(home->shard, away->shard, *away->tasks, call);
  *got = **made;
  done->count_down();
}

TEST_F(CallOnTest, ResultsMayBeMoveOnly) {
  int got = 0;
  std::latch done(1);
  home_.shard.Post([&] { home_.tasks->Add(AskForInt(&home_, &away_, &got, &done)); });
  done.wait();
  EXPECT_EQ(got, 42);
}

}  // namespace
}  // namespace gabion::engine
