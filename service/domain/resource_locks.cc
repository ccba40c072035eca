#include "service/domain/resource_locks.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "service/errors.h"

namespace gabion::service {
namespace {

// Why the wait for `name` ends; OK if it goes on.
absl::Status EndOf(const Patience& patience, const std::string& name) {
  if (patience.gone != nullptr && patience.gone->load(std::memory_order_acquire)) {
    return absl::CancelledError(absl::StrCat("The caller has gone while it waited for ", name));
  }
  if (Patience::Clock::now() < patience.until) return absl::OkStatus();
  return Error(reason::kOperationInProgress,
               absl::StrCat("Other calls are changing ", name,
                            "; this one has waited for them as long as it could."))
      .Metadata("resource", name);
}

}  // namespace

ResourceLocks::Guard::Guard(ResourceLocks* locks, Held held)
    : locks_(locks), held_(std::move(held)) {}

ResourceLocks::Guard::Guard(Guard&& other) noexcept
    : locks_(std::exchange(other.locks_, nullptr)), held_(std::move(other.held_)) {}

ResourceLocks::Guard::~Guard() {
  if (locks_ != nullptr) locks_->Unlock(held_);
}

absl::StatusOr<ResourceLocks::Guard> ResourceLocks::LockFor(
    const Patience& patience, const std::vector<std::string>& names,
    const std::vector<std::string>& shared) {
  Guard::Held wanted;
  for (const std::string& name : names) wanted[name] = false;
  for (const std::string& name : shared) wanted.try_emplace(name, true);
  Guard::Held held;
  std::unique_lock lock(mutex_);
  for (const auto& [name, is_shared] : wanted) {
    const absl::Status taken = Take(name, is_shared, patience, &lock);
    if (!taken.ok()) {
      Release(held);
      called_.notify_all();
      return taken;
    }
    held.emplace(name, is_shared);
  }
  return Guard(this, std::move(held));
}

ResourceLocks::Guard ResourceLocks::Lock(const std::vector<std::string>& names,
                                         const std::vector<std::string>& shared) {
  absl::StatusOr<Guard> guard = LockFor(Patience(), names, shared);
  CHECK(guard.ok());  // nothing ends its wait
  return *std::move(guard);
}

void ResourceLocks::LookAgain() {
  { const std::lock_guard lock(mutex_); }  // whoever has just looked waits by now
  called_.notify_all();
}

absl::Status ResourceLocks::Take(const std::string& name, bool shared, const Patience& patience,
                                 std::unique_lock<std::mutex>* lock) {
  Entry& entry = entries_[name];  // stays: it is erased only when nobody waits
  const auto mine = entry.waiting.insert(entry.waiting.end(), shared);
  const auto is_free = [&] {
    return entry.waiting.begin() == mine && !entry.alone && (shared || entry.sharers == 0);
  };
  while (!is_free()) {
    absl::Status end = EndOf(patience, name);
    if (!end.ok()) {
      entry.waiting.erase(mine);
      EraseIfUnused(name);
      called_.notify_all();  // the next one may be in front now
      return end;
    }
    if (patience.until == Patience::Clock::time_point::max()) {
      called_.wait(*lock);
    } else {
      called_.wait_until(*lock, patience.until);
    }
  }
  entry.waiting.erase(mine);
  if (!shared) {
    entry.alone = true;
    return absl::OkStatus();
  }
  ++entry.sharers;
  called_.notify_all();  // the next may share it, too
  return absl::OkStatus();
}

void ResourceLocks::Release(const Guard::Held& held) {
  for (const auto& [name, shared] : held) {
    Entry& entry = entries_.at(name);
    if (shared) {
      --entry.sharers;
    } else {
      entry.alone = false;
    }
    EraseIfUnused(name);
  }
}

void ResourceLocks::Unlock(const Guard::Held& held) {
  {
    const std::lock_guard lock(mutex_);
    Release(held);
  }
  called_.notify_all();
}

void ResourceLocks::EraseIfUnused(const std::string& name) {
  const auto found = entries_.find(name);
  const Entry& entry = found->second;
  if (entry.waiting.empty() && entry.sharers == 0 && !entry.alone) entries_.erase(found);
}

}  // namespace gabion::service
