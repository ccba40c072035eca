// One operation at a time per name, in the order of asking.
#pragma once

#include <coroutine>
#include <deque>
#include <map>
#include <string>
#include <utility>

#include "engine/base/check.h"
#include "engine/runtime/ready_queue.h"

namespace gabion::engine {

// Owned by its user; used on one shard.
class KeyedMutex {
 public:
  // Held until destroyed.
  class [[nodiscard]] Lock {
   public:
    Lock(KeyedMutex& mutex, std::string key) : mutex_(&mutex), key_(std::move(key)) {}
    Lock(Lock&& other) noexcept
        : mutex_(std::exchange(other.mutex_, nullptr)), key_(std::move(other.key_)) {}
    Lock& operator=(Lock&&) = delete;
    ~Lock() {
      if (mutex_ != nullptr) mutex_->Release(key_);
    }

   private:
    KeyedMutex* mutex_;
    std::string key_;
  };

  explicit KeyedMutex(runtime::ReadyQueue& ready) : ready_(ready) {}
  ~KeyedMutex() { CHECK(queues_.empty()); }
  KeyedMutex(const KeyedMutex&) = delete;
  KeyedMutex& operator=(const KeyedMutex&) = delete;

  // co_await mutex.Acquire(key) -> Lock.
  auto Acquire(std::string key) {
    struct Awaiter {
      KeyedMutex& mutex;
      std::string key;
      bool await_ready() { return mutex.queues_.try_emplace(key).second; }
      void await_suspend(std::coroutine_handle<> waiter) { mutex.queues_[key].push_back(waiter); }
      Lock await_resume() { return Lock(mutex, std::move(key)); }
    };
    return Awaiter{*this, std::move(key)};
  }

 private:
  // Hands the lock to the next in line; the entry stays while anybody holds it.
  void Release(const std::string& key) {
    auto found = queues_.find(key);
    CHECK(found != queues_.end());
    if (found->second.empty()) {
      queues_.erase(found);
      return;
    }
    ready_.Push(found->second.front());
    found->second.pop_front();
  }

  runtime::ReadyQueue& ready_;
  std::map<std::string, std::deque<std::coroutine_handle<>>> queues_;
};

}  // namespace gabion::engine
