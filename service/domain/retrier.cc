#include "service/domain/retrier.h"

#include <algorithm>
#include <utility>

namespace gabion::service {

Retrier::Retrier(std::chrono::milliseconds first_wait, std::chrono::milliseconds longest_wait,
                 Try try_again)
    : first_wait_(first_wait),
      longest_wait_(longest_wait),
      try_again_(std::move(try_again)),
      thread_([this] { Loop(); }) {}

Retrier::~Retrier() { Stop(); }

void Retrier::Add(const std::string& key) {
  {
    const std::lock_guard lock(mutex_);
    entries_.emplace(key, Entry{Clock::now() + first_wait_, first_wait_});
  }
  changed_.notify_one();
}

void Retrier::Remove(const std::string& key) {
  const std::lock_guard lock(mutex_);
  entries_.erase(key);
}

void Retrier::Stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void Retrier::Loop() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    const auto first =
        std::min_element(entries_.begin(), entries_.end(),
                         [](const auto& a, const auto& b) { return a.second.due < b.second.due; });
    if (first == entries_.end()) {
      changed_.wait(lock);
      continue;
    }
    if (first->second.due > Clock::now()) {
      const Clock::time_point due = first->second.due;
      changed_.wait_until(lock, due);
      continue;
    }
    const std::string key = first->first;
    lock.unlock();
    const bool done = try_again_(key);
    lock.lock();
    const auto entry = entries_.find(key);
    if (entry == entries_.end()) continue;
    if (done) {
      entries_.erase(entry);
    } else {
      entry->second.wait = std::min(entry->second.wait * 2, longest_wait_);
      entry->second.due = Clock::now() + entry->second.wait;
    }
  }
}

}  // namespace gabion::service
