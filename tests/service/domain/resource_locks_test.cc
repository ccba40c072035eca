#include "service/domain/resource_locks.h"

#include <gtest/gtest.h>

#include <atomic>
#include <optional>
#include <thread>
#include <vector>

#include "service/errors.h"

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

constexpr Patience kNone{.until = Patience::Clock::time_point::min()};

TEST(ResourceLocksTest, AWaitEndsWhenItsTimeIsOverAndSaysForWhat) {
  ResourceLocks locks;
  const ResourceLocks::Guard held = locks.Lock({"images/b"}, {"images/c"});
  const absl::Status alone = locks.LockFor(kNone, {"images/a", "images/b"}).status();
  EXPECT_EQ(alone.code(), absl::StatusCode::kAborted);
  EXPECT_EQ(InfoOf(alone).reason(), "OPERATION_IN_PROGRESS");
  EXPECT_EQ(InfoOf(alone).metadata().at("resource"), "images/b");
  EXPECT_FALSE(locks.LockFor(kNone, {}, {"images/b"}).ok());
  EXPECT_FALSE(locks.LockFor(kNone, {"images/c"}).ok());
  EXPECT_TRUE(locks.LockFor(kNone, {}, {"images/c"}).ok());
  const auto soon = Patience::Clock::now() + std::chrono::milliseconds(1);
  EXPECT_FALSE(locks.LockFor({.until = soon}, {"images/b"}).ok());
  EXPECT_GE(Patience::Clock::now(), soon);
  EXPECT_TRUE(locks.LockFor(kNone, {"images/a"}).ok());  // what it had is free again
}

TEST(ResourceLocksTest, AWaitEndsWhenItsCallerHasGone) {
  ResourceLocks locks;
  const ResourceLocks::Guard held = locks.Lock({"a"});
  std::atomic<bool> gone = false;
  std::thread waiter([&] {
    const absl::Status left = locks.LockFor({.gone = &gone}, {"a"}).status();
    EXPECT_EQ(left.code(), absl::StatusCode::kCancelled);
  });
  gone = true;
  locks.LookAgain();
  waiter.join();
}

TEST(ResourceLocksTest, WhoStopsWaitingLetsTheNextOneIn) {
  ResourceLocks locks;
  std::optional<ResourceLocks::Guard> held = locks.Lock({}, {"a"});
  std::atomic<bool> gone = false;
  std::thread first([&] { EXPECT_FALSE(locks.LockFor({.gone = &gone}, {"a"}).ok()); });
  // A sharer comes in unless somebody waits to be alone.
  while (locks.LockFor(kNone, {}, {"a"}).ok()) std::this_thread::yield();
  std::thread second([&] { const ResourceLocks::Guard shared = locks.Lock({}, {"a"}); });
  gone = true;
  locks.LookAgain();
  first.join();
  second.join();
  held.reset();
  EXPECT_TRUE(locks.LockFor(kNone, {"a"}).ok());
}

TEST(ResourceLocksTest, WaitsThatEndAtAnyTimeLeaveNothingBehind) {
  ResourceLocks locks;
  int inside = 0;  // guarded by the lock
  std::vector<std::thread> threads;
  for (int i = 0; i < 6; ++i) {
    threads.emplace_back([&, i] {
      for (int round = 0; round < 2000; ++round) {
        const auto until = Patience::Clock::now() + std::chrono::microseconds(round % 50);
        const auto guard = locks.LockFor({.until = until}, {"a", i % 2 == 0 ? "b" : "c"});
        if (!guard.ok()) continue;
        EXPECT_EQ(++inside, 1);
        --inside;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(locks.LockFor(kNone, {"a", "b", "c"}).ok());
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
