#include "engine/keyed_mutex.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "engine/runtime/event.h"
#include "engine/runtime/task_set.h"
#include "tests/support/random_source.h"

namespace gabion::engine {
namespace {

class KeyedMutexTest : public ::testing::Test {
 protected:
  // Holds `key` for `turns` turns of the queue, and writes down who came in when.
  Task<void> Hold(std::string key, int who, int turns) {
    const KeyedMutex::Lock lock = co_await mutex_.Acquire(key);
    EXPECT_EQ(++inside_[key], 1);
    entered_.push_back(who);
    for (int i = 0; i < turns; ++i) co_await ready_.Yield();
    EXPECT_EQ(--inside_[key], 0);
  }

  runtime::ReadyQueue ready_;
  KeyedMutex mutex_{ready_};
  std::map<std::string, int> inside_;
  std::vector<int> entered_;
  runtime::TaskSet tasks_{ready_};
};

TEST_F(KeyedMutexTest, OneAtATimeInTheOrderOfAsking) {
  for (int i = 0; i < 5; ++i) tasks_.Add(Hold("a", i, 5 - i));
  EXPECT_EQ(entered_, (std::vector<int>{0}));
  ready_.RunUntilIdle();
  EXPECT_EQ(entered_, (std::vector<int>{0, 1, 2, 3, 4}));
}

TEST_F(KeyedMutexTest, OtherKeysDoNotWait) {
  tasks_.Add(Hold("a", 0, 3));
  tasks_.Add(Hold("b", 1, 3));
  tasks_.Add(Hold("", 2, 3));
  EXPECT_EQ(entered_, (std::vector<int>{0, 1, 2}));
  ready_.RunUntilIdle();
}

TEST_F(KeyedMutexTest, KeyIsFreeAfterItsLastHolder) {
  tasks_.Add(Hold("a", 0, 0));
  tasks_.Add(Hold("a", 1, 0));
  EXPECT_EQ(entered_, (std::vector<int>{0, 1}));
  EXPECT_EQ(tasks_.running(), 0u);
}

// Between the release of a lock and the turn of the next in line, nobody slips in.
TEST_F(KeyedMutexTest, LatecomerDoesNotOvertake) {
  tasks_.Add(Hold("a", 0, 1));
  tasks_.Add(Hold("a", 1, 1));
  ready_.RunOnce();  // 0 is done, 1 is ready but has not run
  tasks_.Add(Hold("a", 2, 0));
  ready_.RunUntilIdle();
  EXPECT_EQ(entered_, (std::vector<int>{0, 1, 2}));
}

TEST_F(KeyedMutexTest, ManyHoldersInAnyScheduleExcludeEachOther) {
  test::RandomSource random;
  ready_.SetChooser(&test::RandomSource::Choose, &random);
  for (int i = 0; i < 500; ++i) {
    std::string key(1, static_cast<char>('a' + random.Below(4)));
    tasks_.Add(Hold(std::move(key), i, static_cast<int>(random.Below(4))));
    if (random.OneIn(3)) ready_.RunOnce();
  }
  ready_.RunUntilIdle();
  EXPECT_EQ(entered_.size(), 500u);
  EXPECT_EQ(tasks_.running(), 0u);
}

}  // namespace
}  // namespace gabion::engine
