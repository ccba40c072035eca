// Order among the calls that change one resource.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace gabion::service {

// Locks named by resource names, e.g. "images/a". Whoever asks first gets a lock first. A call that
// needs several takes them all at once, here in the order of their names, so that two calls never
// wait for each other. Owned by the domain; any thread, which may block.
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
    Guard(ResourceLocks* locks, std::vector<std::string> names);

    ResourceLocks* locks_;
    std::vector<std::string> names_;  // sorted
  };

  ResourceLocks() = default;
  ResourceLocks(const ResourceLocks&) = delete;
  ResourceLocks& operator=(const ResourceLocks&) = delete;

  // Blocks until all of `names` are held. The caller holds no other guard.
  [[nodiscard]] Guard Lock(std::vector<std::string> names);

 private:
  // A queue as at a counter: one draws a number and waits until it is called.
  struct Entry {
    uint64_t next_number = 0;
    uint64_t called_number = 0;
  };

  void Unlock(const std::vector<std::string>& names);

  std::mutex mutex_;
  std::condition_variable called_;
  std::map<std::string, Entry> entries_;  // only those that are held
};

}  // namespace gabion::service
