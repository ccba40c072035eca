// Aligned buffers for payloads, recycled per shard.
#pragma once

#include <array>
#include <cstddef>
#include <utility>
#include <vector>

#include "engine/base/units.h"

namespace gabion::runtime {

class BufferPool;

// Memory for one payload, aligned to kBufferAlignment; goes back to its pool when destroyed.
// Move-only.
class Buffer {
 public:
  Buffer() = default;
  Buffer(Buffer&& other) noexcept
      : pool_(std::exchange(other.pool_, nullptr)),
        memory_(std::exchange(other.memory_, nullptr)),
        length_(std::exchange(other.length_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(pool_, other.pool_);
    std::swap(memory_, other.memory_);
    std::swap(length_, other.length_);
    return *this;
  }
  ~Buffer();

  MutableBytes bytes() { return {memory_, length_}; }
  Bytes bytes() const { return {memory_, length_}; }
  std::size_t size() const { return length_; }

 private:
  friend class BufferPool;
  Buffer(BufferPool* pool, std::byte* memory, std::size_t length)
      : pool_(pool), memory_(memory), length_(length) {}

  BufferPool* pool_ = nullptr;
  std::byte* memory_ = nullptr;
  std::size_t length_ = 0;
};

// Fits every alignment that direct I/O asks for.
inline constexpr std::size_t kBufferAlignment = 4096;

// Owned by a shard, used on it; outlives its buffers. Keeps at most `max_cached` bytes for reuse.
class BufferPool {
 public:
  explicit BufferPool(ByteCount max_cached) : max_cached_(max_cached.value) {}
  ~BufferPool();
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;

  // A buffer of exactly `length` bytes (0 is allowed); contents unspecified.
  Buffer Allocate(std::size_t length);

 private:
  friend class Buffer;
  static constexpr std::size_t kClasses = 14;  // 4 KiB, 8 KiB, ... 32 MiB; larger ones are not kept

  void Return(std::byte* memory, std::size_t length);

  const std::size_t max_cached_;
  std::size_t cached_ = 0;
  std::size_t lent_ = 0;
  std::array<std::vector<std::byte*>, kClasses> free_;
};

}  // namespace gabion::runtime
