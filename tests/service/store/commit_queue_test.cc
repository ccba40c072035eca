#include "service/store/commit_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <string>
#include <thread>
#include <vector>

namespace gabion::service {
namespace {

using testing::ElementsAre;

std::vector<Mutation> Named(int number) { return {Touch("images", std::to_string(number))}; }
uint64_t NumberOf(const PendingCommit& commit) { return std::stoull(commit.steps->front().name); }

// Answers each commit with its number, and notes the groups. The first write goes on when `held`
// others wait and it may.
struct Recorder {
  size_t held = 0;
  std::atomic<bool> may_go_on = true;
  std::atomic<bool> started = false;
  std::vector<std::vector<uint64_t>> groups;
  CommitQueue queue{[this](std::span<PendingCommit* const> group) {
    started = true;
    while (groups.empty() && (!may_go_on || queue.waiting() < held)) std::this_thread::yield();
    groups.emplace_back();
    for (PendingCommit* commit : group) {
      groups.back().push_back(NumberOf(*commit));
      commit->answer = NumberOf(*commit);
    }
  }};

  std::vector<size_t> Sizes() const {
    std::vector<size_t> sizes;
    for (const auto& group : groups) sizes.push_back(group.size());
    return sizes;
  }
  void CommitFromThreads(int count) {
    std::vector<std::thread> threads;
    for (int i = 0; i < count; ++i) {
      threads.emplace_back([this, i] { EXPECT_EQ(*queue.Commit(Named(i)), uint64_t(i)); });
    }
    for (std::thread& thread : threads) thread.join();
  }
};

TEST(CommitQueueTest, ALoneCallerIsAGroupOfOne) {
  Recorder recorder;
  EXPECT_EQ(*recorder.queue.Commit(Named(7)), 7u);
  EXPECT_EQ(*recorder.queue.Commit(Named(8)), 8u);
  EXPECT_THAT(recorder.groups, ElementsAre(ElementsAre(7), ElementsAre(8)));
}

TEST(CommitQueueTest, WhoComesDuringAWriteIsWrittenTogether) {
  Recorder recorder{.held = 9};
  recorder.CommitFromThreads(10);
  EXPECT_THAT(recorder.Sizes(), ElementsAre(1, 9));
}

TEST(CommitQueueTest, GroupsAreBoundedAndLoseNobody) {
  Recorder recorder{.held = CommitQueue::kMaxGroup + 5};
  recorder.CommitFromThreads(CommitQueue::kMaxGroup + 6);
  EXPECT_THAT(recorder.Sizes(), ElementsAre(1, CommitQueue::kMaxGroup, 5));
  std::vector<uint64_t> all;
  for (const auto& group : recorder.groups) all.insert(all.end(), group.begin(), group.end());
  std::sort(all.begin(), all.end());
  for (size_t i = 0; i < all.size(); ++i) EXPECT_EQ(all[i], i);
}

TEST(CommitQueueTest, CommitsAreWrittenInTheOrderOfTheCalls) {
  Recorder recorder{.held = 20, .may_go_on = false};
  std::vector<std::thread> threads;
  const auto start = [&](int number) {
    threads.emplace_back([&recorder, number] { (void)recorder.queue.Commit(Named(number)); });
  };
  start(0);
  while (!recorder.started) std::this_thread::yield();
  std::vector<uint64_t> followers;
  for (int i = 1; i <= 20; ++i) {
    start(i);
    while (recorder.queue.waiting() < static_cast<size_t>(i)) std::this_thread::yield();
    followers.push_back(i);
  }
  recorder.may_go_on = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(recorder.groups, ElementsAre(ElementsAre(0), followers));
}

TEST(CommitQueueTest, OneWriteAtATimeUnderLoad) {
  constexpr int kThreads = 8, kEach = 500;
  std::atomic<int> inside = 0;
  uint64_t written = 0;  // by the leader only
  CommitQueue queue([&](std::span<PendingCommit* const> group) {
    EXPECT_EQ(++inside, 1);
    EXPECT_LE(group.size(), size_t{kThreads});
    for (PendingCommit* commit : group) {
      ++written;
      commit->answer = NumberOf(*commit) % 3 == 0
                           ? absl::StatusOr<uint64_t>(absl::AbortedError("third"))
                           : absl::StatusOr<uint64_t>(NumberOf(*commit));
    }
    --inside;
  });
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) {
        const int number = t * kEach + i;
        const auto answer = queue.Commit(Named(number));
        EXPECT_EQ(answer.ok(), number % 3 != 0);
        EXPECT_TRUE(!answer.ok() || *answer == uint64_t(number)) << number;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(written, uint64_t{kThreads * kEach});
  EXPECT_EQ(queue.waiting(), 0u);
}

}  // namespace
}  // namespace gabion::service
