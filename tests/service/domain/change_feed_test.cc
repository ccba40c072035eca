#include "service/domain/change_feed.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <thread>

#include "service/store/memory_store.h"
#include "service/store/sqlite_store.h"
#include "tests/service/temp_dir.h"

namespace gabion::service {
namespace {

TEST(ChangeFeedTest, EverySubscriberIsToldOfEveryLoggedCommit) {
  const auto store = NewMemoryStore();
  ChangeFeed feed(*store);
  int first = 0;
  int second = 0;
  feed.Subscribe([&] { ++first; });
  ASSERT_TRUE(store->Commit({Put("images", "images/a", "1")}).ok());
  feed.Subscribe([&] { ++second; });
  ASSERT_TRUE(store->Commit({Put("images", "images/a", "2"), Touch("images", "images/a")}).ok());
  ASSERT_TRUE(store->Commit({Put("jobs", "operations/o", "bookkeeping")}).ok());
  EXPECT_EQ(first, 2);
  EXPECT_EQ(second, 1);
}

TEST(ChangeFeedTest, WhatASubscriberReadsWhenToldHasTheChange) {
  const TempDir dir;
  const auto store = OpenSqliteStore(dir / "store.db");
  ASSERT_TRUE(store.ok()) << store.status();
  ChangeFeed feed(**store);
  uint64_t seen = 0;
  feed.Subscribe([&] { seen = (*store)->Revision().value_or(0); });
  const auto revision = (*store)->Commit({Put("images", "images/a", "1")});
  ASSERT_TRUE(revision.ok()) << revision.status();
  EXPECT_EQ(seen, *revision);
}

TEST(ChangeFeedTest, NobodyIsCalledOnceUnsubscribed) {
  const auto store = NewMemoryStore();
  ChangeFeed feed(*store);
  std::atomic<bool> stop = false;
  std::thread writer([&] {
    while (!stop) (void)store->Commit({Touch("images", "images/a")});
  });
  for (int i = 0; i < 200; ++i) {
    std::atomic<bool> gone = false;
    std::atomic<int> calls = 0;
    std::atomic<int> late = 0;
    const uint64_t id = feed.Subscribe([&] {
      if (gone) ++late;
      ++calls;
      calls.notify_one();
    });
    calls.wait(0);
    feed.Unsubscribe(id);
    gone = true;
    EXPECT_EQ(late, 0);
  }
  stop = true;
  writer.join();
}

TEST(ChangeFeedTest, AStoreOutlivesItsFeed) {
  const auto store = NewMemoryStore();
  int told = 0;
  {
    ChangeFeed feed(*store);
    feed.Subscribe([&] { ++told; });
  }
  ASSERT_TRUE(store->Commit({Put("images", "images/a", "1")}).ok());
  EXPECT_EQ(told, 0);
}

}  // namespace
}  // namespace gabion::service
