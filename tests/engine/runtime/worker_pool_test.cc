#include "engine/runtime/worker_pool.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>

#include <atomic>
#include <memory>
#include <string>
#include <vector>

namespace gabion::runtime {
namespace {

template <typename T>
T Finish(Reactor& reactor, Task<T> task) {
  while (!task.done()) reactor.RunTurn(true);
  return task.Take();
}

TEST(WorkerPoolTest, WorkRunsElsewhereAndTheCallerGoesOnAtHome) {
  Reactor reactor({});
  WorkerPool pool("worker", 2);
  Workers workers(pool, reactor);
  const auto current = [] { return pthread_self(); };
  const pthread_t worker = Finish(reactor, workers.Run(current));
  EXPECT_FALSE(pthread_equal(worker, pthread_self()));
  EXPECT_EQ(workers.running(), 0u);
}

TEST(WorkerPoolTest, ThreadsAreNamedAndBlockSignals) {
  Reactor reactor({});
  WorkerPool pool("worker", 1);
  Workers workers(pool, reactor);
  const auto describe = [] {
    char name[16];
    pthread_getname_np(pthread_self(), name, sizeof(name));
    sigset_t blocked;
    pthread_sigmask(SIG_BLOCK, nullptr, &blocked);
    return std::string(name) + (sigismember(&blocked, SIGTERM) == 1 ? " blocks" : " takes");
  };
  EXPECT_EQ(Finish(reactor, workers.Run(describe)), "worker-0 blocks");
}

Task<int> SumOf(Workers& workers, int count) {
  std::vector<Task<std::unique_ptr<int>>> tasks;
  tasks.reserve(static_cast<std::size_t>(count));
  for (int i = 0; i < count; ++i) {
    const auto make = [i] { return std::make_unique<int>(i); };
    tasks.push_back(workers.Run(make));
  }
  int sum = 0;
  for (auto& task : tasks) {
    const std::unique_ptr<int> value = co_await task;
    sum += *value;
  }
  co_return sum;
}

TEST(WorkerPoolTest, ManyAtOnceEachGetItsOwnResult) {
  Reactor reactor({});
  WorkerPool pool("worker", 3);
  Workers workers(pool, reactor);
  EXPECT_EQ(Finish(reactor, SumOf(workers, 1000)), 999 * 1000 / 2);
}

TEST(WorkerPoolTest, WhatWasPostedRunsBeforeThePoolEnds) {
  std::atomic<int> ran = 0;
  {
    WorkerPool pool("worker", 2);
    for (int i = 0; i < 100; ++i) pool.Post([&ran] { ++ran; });
  }
  EXPECT_EQ(ran.load(), 100);
}

}  // namespace
}  // namespace gabion::runtime
