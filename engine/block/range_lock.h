// Locks on byte ranges, in the order of arrival.
#pragma once

#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <list>
#include <utility>

#include "engine/base/units.h"
#include "engine/runtime/ready_queue.h"

namespace gabion::block {

enum class RangeLockMode : uint8_t {
  kShared,     // with other shared holders
  kExclusive,  // alone
};

// Keeps operations on overlapping ranges apart. Fair: who arrives waits for every conflicting
// operation that arrived before, holding or waiting, and for nobody else; so nobody starves, and
// disjoint ranges never wait for each other. An operation holds one range at a time: taking a
// second one could wait for a cycle.
//
// Owned by the node that uses it; used on its shard; empty when destroyed.
class RangeLock {
  struct Entry;
  using Queue = std::list<Entry>;

 public:
  // A held range; lets go when destroyed. Movable, so that it can travel into the task it covers.
  class [[nodiscard]] Guard {
   public:
    Guard(Guard&& other) noexcept
        : lock_(std::exchange(other.lock_, nullptr)), entry_(other.entry_) {}
    Guard& operator=(Guard&&) = delete;
    ~Guard() {
      if (lock_ != nullptr) lock_->Release(entry_);
    }

   private:
    friend class RangeLock;
    Guard(RangeLock& lock, Queue::iterator entry) : lock_(&lock), entry_(entry) {}
    RangeLock* lock_;
    Queue::iterator entry_;
  };

  explicit RangeLock(runtime::ReadyQueue& ready) : ready_(ready) {}
  RangeLock(const RangeLock&) = delete;
  RangeLock& operator=(const RangeLock&) = delete;
  ~RangeLock();

  // co_await lock.Acquire(range, mode) -> Guard. Does not suspend if nothing conflicts.
  auto Acquire(ByteRange range, RangeLockMode mode) {
    struct Awaiter {
      RangeLock& lock;
      const ByteRange range;
      const RangeLockMode mode;
      Queue::iterator entry;
      bool await_ready() {
        entry = lock.Enqueue(range, mode);
        return entry->conflicts == 0;
      }
      void await_suspend(std::coroutine_handle<> waiter) { entry->waiter = waiter; }
      Guard await_resume() { return Guard(lock, entry); }
    };
    return Awaiter{*this, range, mode, {}};
  }

  // Operations that hold or wait.
  std::size_t size() const { return queue_.size(); }

 private:
  struct Entry {
    ByteRange range;
    RangeLockMode mode;
    std::size_t conflicts = 0;  // earlier entries that this one waits for
    std::coroutine_handle<> waiter;
  };

  static bool Conflict(const Entry& a, const Entry& b);
  Queue::iterator Enqueue(ByteRange range, RangeLockMode mode);
  void Release(Queue::iterator entry);

  runtime::ReadyQueue& ready_;
  Queue queue_;  // in order of arrival
  Queue free_;   // nodes to use again
};

}  // namespace gabion::block
