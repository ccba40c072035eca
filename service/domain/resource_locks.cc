#include "service/domain/resource_locks.h"

#include <utility>

namespace gabion::service {

ResourceLocks::Guard::Guard(ResourceLocks* locks, Held held)
    : locks_(locks), held_(std::move(held)) {}

ResourceLocks::Guard::Guard(Guard&& other) noexcept
    : locks_(std::exchange(other.locks_, nullptr)), held_(std::move(other.held_)) {}

ResourceLocks::Guard::~Guard() {
  if (locks_ != nullptr) locks_->Unlock(held_);
}

ResourceLocks::Guard ResourceLocks::Lock(const std::vector<std::string>& names,
                                         const std::vector<std::string>& shared) {
  Guard::Held wanted;
  for (const std::string& name : names) wanted[name] = false;
  for (const std::string& name : shared) wanted.try_emplace(name, true);
  std::unique_lock lock(mutex_);
  for (const auto& [name, is_shared] : wanted) Take(name, is_shared, &lock);
  return Guard(this, std::move(wanted));
}

void ResourceLocks::Take(const std::string& name, bool shared, std::unique_lock<std::mutex>* lock) {
  Entry& entry = entries_[name];  // stays: it is erased only when nobody waits
  const uint64_t number = entry.next_number++;
  called_.wait(*lock, [&] {
    return entry.called_number == number && !entry.alone && (shared || entry.sharers == 0);
  });
  ++entry.called_number;
  if (!shared) {
    entry.alone = true;
    return;
  }
  ++entry.sharers;
  called_.notify_all();  // the next may share it, too
}

void ResourceLocks::Unlock(const Guard::Held& held) {
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [name, shared] : held) {
      const auto found = entries_.find(name);
      Entry& entry = found->second;
      if (shared) {
        --entry.sharers;
      } else {
        entry.alone = false;
      }
      const bool wanted = entry.called_number != entry.next_number;
      if (!wanted && entry.sharers == 0 && !entry.alone) entries_.erase(found);
    }
  }
  called_.notify_all();
}

}  // namespace gabion::service
