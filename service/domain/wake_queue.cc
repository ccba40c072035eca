#include "service/domain/wake_queue.h"

#include <utility>

namespace gabion::service {

WakeQueue::WakeQueue(int threads, Visit visit) : visit_(std::move(visit)) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Loop(); });
}

WakeQueue::~WakeQueue() { Stop(); }

void WakeQueue::Add(const std::string& key) {
  {
    const std::lock_guard lock(mutex_);
    entries_.try_emplace(key);
  }
  changed_.notify_one();
}

bool WakeQueue::VisitHere(const std::string& key) {
  std::unique_lock lock(mutex_);
  if (stopping_ || !entries_.try_emplace(key, Entry{kWhenWoken, false, false}).second) return false;
  ++visits_here_;
  VisitAndSettle(key, true, &lock);
  --visits_here_;
  changed_.notify_all();  // under the lock: Stop() may wait for it, and then this goes
  return true;
}

bool WakeQueue::Has(const std::string& key) {
  const std::lock_guard lock(mutex_);
  return entries_.contains(key);
}

void WakeQueue::Wake(const std::string& key) {
  {
    const std::lock_guard lock(mutex_);
    const auto found = entries_.find(key);
    if (found == entries_.end()) return;
    found->second.due = kNow;
    found->second.woken = true;
  }
  changed_.notify_one();
}

void WakeQueue::Stop() {
  {
    std::unique_lock lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
    changed_.wait(lock, [this] { return visits_here_ == 0; });
  }
  for (std::thread& thread : threads_) {
    if (thread.joinable()) thread.join();
  }
}

void WakeQueue::Loop() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    const auto first = First();
    if (first == entries_.end() || first->second.due == kWhenWoken) {
      changed_.wait(lock);
    } else if (first->second.due > Clock::now()) {
      const Clock::time_point due = first->second.due;
      changed_.wait_until(lock, due);
    } else {
      const std::string key = first->first;
      VisitAndSettle(key, false, &lock);
    }
  }
}

WakeQueue::Entries::iterator WakeQueue::First() {
  auto first = entries_.end();
  for (auto it = entries_.begin(); it != entries_.end(); ++it) {
    if (it->second.visited) continue;
    if (first == entries_.end() || it->second.due < first->second.due) first = it;
  }
  return first;
}

void WakeQueue::VisitAndSettle(const std::string& key, bool here,
                               std::unique_lock<std::mutex>* lock) {
  Entry& entry = entries_.at(key);
  entry.visited = true;
  entry.woken = false;
  lock->unlock();
  const Next next = visit_(key, here);
  lock->lock();
  if (next.done) {
    entries_.erase(key);
    return;
  }
  entry.visited = false;
  // Those that can go on at once take turns.
  entry.due = entry.woken || next.due == kNow ? Clock::now() : next.due;
  changed_.notify_one();
}

}  // namespace gabion::service
