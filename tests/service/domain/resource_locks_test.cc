#include "service/domain/resource_locks.h"

#include <gtest/gtest.h>

#include <atomic>
#include <optional>
#include <thread>
#include <vector>

namespace gabion::service {
namespace {

TEST(ResourceLocksTest, HolderKeepsOthersOutAndTheRestFree) {
  ResourceLocks locks;
  std::optional<ResourceLocks::Guard> held = locks.Lock({"images/a"});
  { const ResourceLocks::Guard other = locks.Lock({"images/b"}); }
  std::atomic<bool> released = false;
  std::thread waiter([&] {
    const ResourceLocks::Guard mine = locks.Lock({"images/a"});
    EXPECT_TRUE(released);
  });
  released = true;
  held.reset();
  waiter.join();
}

TEST(ResourceLocksTest, NameGivenTwiceIsLockedOnce) {
  ResourceLocks locks;
  { const ResourceLocks::Guard guard = locks.Lock({"a", "a"}); }
  const ResourceLocks::Guard again = locks.Lock({"a"});
}

TEST(ResourceLocksTest, CallersInAnyOrderNeverWaitForEachOther) {
  ResourceLocks locks;
  const std::vector<std::vector<std::string>> sets = {
      {"a", "b"}, {"b", "a"}, {"b", "c"}, {"c", "a"}, {"c", "b", "a"}, {"a"}, {"c"}};
  int inside[3] = {0, 0, 0};  // guarded by the locks: a data race would be their failure
  std::vector<std::thread> threads;
  for (const auto& names : sets) {
    threads.emplace_back([&locks, &inside, names] {
      for (int round = 0; round < 2000; ++round) {
        const ResourceLocks::Guard guard = locks.Lock(names);
        for (const std::string& name : names) EXPECT_EQ(++inside[name[0] - 'a'], 1);
        for (const std::string& name : names) --inside[name[0] - 'a'];
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(ResourceLocksTest, SharersGoTogetherAndKeepOthersOut) {
  ResourceLocks locks;
  std::optional<ResourceLocks::Guard> first = locks.Lock({}, {"a"});
  std::optional<ResourceLocks::Guard> second = locks.Lock({"b"}, {"a"});
  std::atomic<bool> released = false;
  std::thread waiter([&] {
    const ResourceLocks::Guard mine = locks.Lock({"a"});
    EXPECT_TRUE(released);
  });
  first.reset();
  released = true;
  second.reset();
  waiter.join();
}

TEST(ResourceLocksTest, NameInBothListsIsHeldAlone) {
  ResourceLocks locks;
  std::optional<ResourceLocks::Guard> held = locks.Lock({"a"}, {"a"});
  std::atomic<bool> released = false;
  std::thread sharer([&] {
    const ResourceLocks::Guard mine = locks.Lock({}, {"a"});
    EXPECT_TRUE(released);
  });
  released = true;
  held.reset();
  sharer.join();
}

TEST(ResourceLocksTest, SharersAndOthersNeverMeet) {
  ResourceLocks locks;
  std::atomic<int> sharers = 0;
  int alone = 0;  // guarded by the lock
  std::vector<std::thread> threads;
  for (int i = 0; i < 6; ++i) {
    threads.emplace_back([&, i] {
      for (int round = 0; round < 2000; ++round) {
        if (i % 2 == 0) {
          const ResourceLocks::Guard guard = locks.Lock({}, {"a"});
          ++sharers;
          EXPECT_EQ(alone, 0);
          --sharers;
        } else {
          const ResourceLocks::Guard guard = locks.Lock({"a"});
          EXPECT_EQ(++alone, 1);
          EXPECT_EQ(sharers, 0);
          --alone;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace gabion::service
