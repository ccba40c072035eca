#include "service/domain/reconciler.h"

#include <algorithm>
#include <utility>

namespace gabion::service {

Reconciler::Reconciler(ReconcilerOptions options, Work work)
    : options_(options), work_(std::move(work)), thread_([this] { Loop(); }) {}

Reconciler::~Reconciler() { Stop(); }

void Reconciler::Add(const std::string& name, std::chrono::milliseconds wait) {
  {
    const std::lock_guard lock(mutex_);
    const Clock::time_point due = Clock::now() + wait;
    const auto [entry, added] = entries_.try_emplace(name, Entry{due, options_.first_wait});
    if (!added) {
      entry->second.due = std::min(entry->second.due, due);
      entry->second.next_wait = options_.first_wait;
    }
    if (name == working_on_) {
      entry->second.due = due;
      entry->second.again = true;
    }
  }
  changed_.notify_one();
}

void Reconciler::AddFailed(const std::string& name) {
  {
    const std::lock_guard lock(mutex_);
    const Clock::time_point due = Clock::now() + WithChance(options_.first_wait);
    const auto [entry, added] = entries_.try_emplace(name, Entry{due, options_.first_wait * 2});
    if (!added) entry->second.due = std::min(entry->second.due, due);
  }
  changed_.notify_one();
}

void Reconciler::Remove(const std::string& name) {
  const std::lock_guard lock(mutex_);
  entries_.erase(name);
}

void Reconciler::Stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_one();
  if (thread_.joinable()) thread_.join();
}

std::chrono::milliseconds Reconciler::WithChance(std::chrono::milliseconds wait) {
  const auto most = wait.count() / 5;
  return wait - std::chrono::milliseconds(
                    std::uniform_int_distribution<decltype(wait.count())>(0, most)(chance_));
}

void Reconciler::Settle(const std::string& name, Outcome outcome) {
  const auto entry = entries_.find(name);
  if (entry == entries_.end()) return;
  if (std::exchange(entry->second.again, false)) return;  // due as it was added
  if (outcome == Outcome::kDone) {
    entries_.erase(entry);
    return;
  }
  entry->second.due = Clock::now() + WithChance(entry->second.next_wait);
  entry->second.next_wait = std::min(entry->second.next_wait * 2, options_.longest_wait);
}

void Reconciler::Loop() {
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
    working_on_ = first->first;
    lock.unlock();
    const Outcome outcome = work_(working_on_);
    lock.lock();
    Settle(std::exchange(working_on_, std::string()), outcome);
  }
}

}  // namespace gabion::service
