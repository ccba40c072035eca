#include "engine/runtime/worker_pool.h"

#include <pthread.h>
#include <signal.h>

namespace gabion::runtime {

WorkerPool::WorkerPool(const std::string& name, std::size_t threads) {
  CHECK_GE(threads, 1u);
  CHECK_LE(name.size(), 12u);
  threads_.reserve(threads);
  for (std::size_t i = 0; i < threads; ++i) {
    threads_.emplace_back([this, thread_name = name + "-" + std::to_string(i)] {
      pthread_setname_np(pthread_self(), thread_name.substr(0, 15).c_str());
      sigset_t all;
      sigfillset(&all);
      pthread_sigmask(SIG_BLOCK, &all, nullptr);  // signals are the main thread's business
      RunThread();
    });
  }
}

WorkerPool::~WorkerPool() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  arrived_.notify_all();
  for (auto& thread : threads_) thread.join();
}

void WorkerPool::Post(Work work) {
  {
    const std::lock_guard lock(mutex_);
    CHECK(!stopping_);
    queue_.push_back(std::move(work));
  }
  arrived_.notify_one();
}

void WorkerPool::RunThread() {
  std::unique_lock lock(mutex_);
  while (true) {
    arrived_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
    if (queue_.empty()) return;
    Work work = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    std::move(work)();
    lock.lock();
  }
}

}  // namespace gabion::runtime
