#include "service/domain/resource_locks.h"

#include <algorithm>
#include <utility>

namespace gabion::service {

ResourceLocks::Guard::Guard(ResourceLocks* locks, std::vector<std::string> names)
    : locks_(locks), names_(std::move(names)) {}

ResourceLocks::Guard::Guard(Guard&& other) noexcept
    : locks_(std::exchange(other.locks_, nullptr)), names_(std::move(other.names_)) {}

ResourceLocks::Guard::~Guard() {
  if (locks_ != nullptr) locks_->Unlock(names_);
}

ResourceLocks::Guard ResourceLocks::Lock(std::vector<std::string> names) {
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  std::unique_lock lock(mutex_);
  for (const std::string& name : names) {
    Entry& entry = entries_[name];  // stays: it is erased only when nobody waits
    const uint64_t number = entry.next_number++;
    called_.wait(lock, [&] { return entry.called_number == number; });
  }
  return Guard(this, std::move(names));
}

void ResourceLocks::Unlock(const std::vector<std::string>& names) {
  {
    const std::lock_guard lock(mutex_);
    for (const std::string& name : names) {
      const auto found = entries_.find(name);
      if (++found->second.called_number == found->second.next_number) entries_.erase(found);
    }
  }
  called_.notify_all();
}

}  // namespace gabion::service
