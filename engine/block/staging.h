// Memory between a caller's buffer and a child that wants aligned buffers, with a bound.
#pragma once

#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <memory>
#include <utility>

#include "engine/base/units.h"
#include "engine/runtime/ready_queue.h"

namespace gabion::block {

// Hands out aligned buffers of at most `budget` bytes together; who asks for more waits, in the
// order of arrival. Owned by a node; used on its shard; every buffer is back before it is
// destroyed.
class StagingPool {
 public:
  // A buffer; goes back when destroyed. Its content is unspecified at first.
  class [[nodiscard]] Buffer {
   public:
    Buffer(Buffer&& other) noexcept
        : pool_(std::exchange(other.pool_, nullptr)),
          memory_(std::move(other.memory_)),
          size_(other.size_) {}
    Buffer& operator=(Buffer&&) = delete;
    ~Buffer() {
      if (pool_ != nullptr) pool_->GiveBack(size_);
    }
    MutableBytes bytes() { return {memory_.get(), size_}; }

   private:
    friend class StagingPool;
    struct Free {
      void operator()(std::byte* memory) const { std::free(memory); }
    };
    Buffer(StagingPool& pool, std::size_t size);
    StagingPool* pool_;
    std::unique_ptr<std::byte, Free> memory_;
    std::size_t size_;
  };

  // `alignment`, a power of two: of the buffers' addresses.
  StagingPool(runtime::ReadyQueue& ready, std::size_t budget, std::size_t alignment)
      : ready_(ready), alignment_(alignment), budget_(budget), available_(budget) {}
  StagingPool(const StagingPool&) = delete;
  StagingPool& operator=(const StagingPool&) = delete;
  ~StagingPool();

  // co_await pool.Take(size) -> Buffer. REQUIRES: 0 < size <= budget. An operation takes one buffer
  // at a time: with two, a full pool could wait for itself.
  auto Take(std::size_t size) {
    struct Awaiter {
      StagingPool& pool;
      const std::size_t size;
      bool await_ready() const { return pool.TryReserve(size); }
      void await_suspend(std::coroutine_handle<> waiter) const {
        pool.waiting_.push_back({waiter, size});
      }
      Buffer await_resume() const { return Buffer(pool, size); }
    };
    return Awaiter{*this, size};
  }

  std::size_t in_use() const { return budget_ - available_; }

 private:
  struct Waiter {
    std::coroutine_handle<> coroutine;
    std::size_t size;
  };

  bool TryReserve(std::size_t size);
  void GiveBack(std::size_t size);

  runtime::ReadyQueue& ready_;
  const std::size_t alignment_;
  const std::size_t budget_;
  std::size_t available_;
  std::deque<Waiter> waiting_;
};

}  // namespace gabion::block
