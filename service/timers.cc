#include "service/timers.h"

#include <algorithm>

namespace gabion::service {
namespace {

// So that no sum of times overflows.
constexpr Timers::Clock::duration kLongest = std::chrono::hours(24 * 365);

}  // namespace

Timers::Timers() : thread_([this] { Loop(); }) {}

Timers::~Timers() { Stop(); }

uint64_t Timers::After(Clock::duration delay, Callback callback) {
  uint64_t id;
  {
    const std::lock_guard lock(mutex_);
    id = ++last_id_;
    if (stopping_) return id;
    const Clock::time_point due = Clock::now() + std::min(delay, kLongest);
    due_.emplace(id, due);
    waiting_.emplace(Key(due, id), std::move(callback));
  }
  changed_.notify_one();
  return id;
}

bool Timers::Cancel(uint64_t id) {
  Callback cancelled;  // destroyed without the lock
  const std::lock_guard lock(mutex_);
  const auto due = due_.find(id);
  if (due == due_.end()) return false;
  const auto found = waiting_.find(Key(due->second, id));
  cancelled = std::move(found->second);
  waiting_.erase(found);
  due_.erase(due);
  return true;
}

void Timers::Stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_one();
  if (thread_.joinable()) thread_.join();
  std::map<Key, Callback> dropped;
  const std::lock_guard lock(mutex_);
  dropped.swap(waiting_);
  due_.clear();
}

void Timers::Loop() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    if (waiting_.empty()) {
      changed_.wait(lock);
      continue;
    }
    const auto first = waiting_.begin();
    const Clock::time_point due = first->first.first;
    if (due > Clock::now()) {
      changed_.wait_until(lock, due);
      continue;
    }
    Callback callback = std::move(first->second);
    due_.erase(first->first.second);
    waiting_.erase(first);
    lock.unlock();
    std::move(callback)();
    callback = nullptr;
    lock.lock();
  }
}

}  // namespace gabion::service
