// Order among the calls that change one resource.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <list>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "service/domain/call.h"

namespace gabion::service {

// Locks named by resource names, e.g. "images/a": each held by one, or shared by several. Whoever
// asks first gets a lock first. A call that needs several takes them all at once, here in the order
// of their names, so that two calls never wait for each other. Owned by the domain; any thread,
// which may block.
class ResourceLocks {
 public:
  // Holds the locks as long as it lives.
  class Guard {
   public:
    Guard(Guard&& other) noexcept;
    Guard& operator=(Guard&&) = delete;
    ~Guard();

   private:
    friend class ResourceLocks;
    using Held = std::map<std::string, bool>;  // name, and whether it is shared
    Guard(ResourceLocks* locks, Held held);

    ResourceLocks* locks_;
    Held held_;
  };

  ResourceLocks() = default;
  ResourceLocks(const ResourceLocks&) = delete;
  ResourceLocks& operator=(const ResourceLocks&) = delete;

  // Blocks until all of `names` are held, and `shared` at least shared: what is in both is held
  // alone. The caller holds no other guard, but for that of a request id, which comes before.
  // For the daemon's own work, however long it takes.
  [[nodiscard]] Guard Lock(const std::vector<std::string>& names,
                           const std::vector<std::string>& shared = {});
  // The same for a call, as long as that may take: then ABORTED OPERATION_IN_PROGRESS, which names
  // the resource, or CANCELLED if its caller has gone. What is free is taken in any case.
  absl::StatusOr<Guard> LockFor(const Patience& patience, const std::vector<std::string>& names,
                                const std::vector<std::string>& shared = {});

  // Some `Patience.gone` has become true: those who wait look at theirs.
  void LookAgain();

 private:
  // A queue: the one in front has the lock when it is free for him, and leaves the queue.
  struct Entry {
    std::list<bool> waiting;  // whether they share it
    uint64_t sharers = 0;     // that hold it
    bool alone = false;       // somebody holds it
  };

  absl::Status Take(const std::string& name, bool shared, const Patience& patience,
                    std::unique_lock<std::mutex>* lock);
  void Release(const Guard::Held& held);
  void Unlock(const Guard::Held& held);
  void EraseIfUnused(const std::string& name);

  std::mutex mutex_;
  std::condition_variable called_;
  std::map<std::string, Entry> entries_;  // only those that are held or waited for
};

}  // namespace gabion::service
