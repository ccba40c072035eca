// Order among the calls that change one resource.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

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
  [[nodiscard]] Guard Lock(const std::vector<std::string>& names,
                           const std::vector<std::string>& shared = {});

 private:
  // A queue as at a counter: one draws a number, waits until it is called and the lock is free for
  // him, and has the next one called.
  struct Entry {
    uint64_t next_number = 0;
    uint64_t called_number = 0;
    uint64_t sharers = 0;  // that hold it
    bool alone = false;    // somebody holds it
  };

  void Take(const std::string& name, bool shared, std::unique_lock<std::mutex>* lock);
  void Unlock(const Guard::Held& held);

  std::mutex mutex_;
  std::condition_variable called_;
  std::map<std::string, Entry> entries_;  // only those that are held
};

}  // namespace gabion::service
