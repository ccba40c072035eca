#include "service/executor.h"

#include <algorithm>
#include <utility>

namespace gabion::service {

Executor::Executor(int threads, std::size_t longest_queue)
    : longest_queue_(longest_queue),
      most_changing_(std::max(1, threads - std::max(1, threads / 4))) {
  threads_.reserve(static_cast<std::size_t>(threads));
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Loop(); });
}

Executor::~Executor() { Stop(); }

Executor::Taken Executor::Offer(Lane lane, Work work) {
  {
    const std::lock_guard lock(mutex_);
    std::deque<Item>& queue = lane == Lane::kReads ? reads_ : changes_;
    if (stopping_) return Taken::kStopped;
    if (queue.size() >= longest_queue_) return Taken::kFull;
    Push(&queue, std::move(work));
  }
  wake_.notify_one();
  return Taken::kYes;
}

bool Executor::Run(Work work) {
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return false;
    Push(&reads_, std::move(work));
  }
  wake_.notify_one();
  return true;
}

void Executor::Push(std::deque<Item>* queue, Work work) {
  queue->push_back({++last_number_, std::move(work)});
}

void Executor::Stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) {
    if (thread.joinable()) thread.join();
  }
}

std::deque<Executor::Item>* Executor::Next() {
  const bool may_change = !changes_.empty() && changing_ < most_changing_;
  if (reads_.empty()) return may_change ? &changes_ : nullptr;
  const bool change_first = may_change && changes_.front().number < reads_.front().number;
  return change_first ? &changes_ : &reads_;
}

void Executor::Loop() {
  std::unique_lock lock(mutex_);
  for (;;) {
    std::deque<Item>* const next = Next();
    if (next == nullptr) {
      if (stopping_) return;  // changes that wait are left to the threads that do changes
      wake_.wait(lock);
      continue;
    }
    const bool changes = next == &changes_;
    Work work = std::move(next->front().work);
    next->pop_front();
    changing_ += changes ? 1 : 0;
    lock.unlock();
    std::move(work)();
    work = nullptr;
    lock.lock();
    changing_ -= changes ? 1 : 0;
    // This thread may turn to a read that is older than the next change.
    if (changes && !changes_.empty()) wake_.notify_one();
  }
}

}  // namespace gabion::service
