#include "engine/runtime/buffer_pool.h"

#include <bit>
#include <cstdlib>

#include "engine/base/align.h"
#include "engine/base/check.h"

namespace gabion::runtime {
namespace {

constexpr std::size_t ClassOf(std::size_t length) {
  const std::size_t pages = (length + kBufferAlignment - 1) / kBufferAlignment;
  return static_cast<std::size_t>(std::bit_width(pages <= 1 ? 0 : pages - 1));
}

constexpr std::size_t SizeOf(std::size_t size_class) { return kBufferAlignment << size_class; }

}  // namespace

Buffer::~Buffer() {
  if (memory_ != nullptr) pool_->Return(memory_, length_);
}

BufferPool::~BufferPool() {
  CHECK_EQ(lent_, 0u);
  for (auto& list : free_) {
    for (std::byte* memory : list) std::free(memory);
  }
}

Buffer BufferPool::Allocate(std::size_t length) {
  const std::size_t size_class = ClassOf(length);
  ++lent_;
  if (size_class < kClasses && !free_[size_class].empty()) {
    std::byte* memory = free_[size_class].back();
    free_[size_class].pop_back();
    cached_ -= SizeOf(size_class);
    return Buffer(this, memory, length);
  }
  const std::size_t size =
      size_class < kClasses ? SizeOf(size_class) : RoundUp(length, kBufferAlignment);
  auto* memory = static_cast<std::byte*>(std::aligned_alloc(kBufferAlignment, size));
  CHECK(memory != nullptr);  // lengths are bounded by what sessions may have in flight
  return Buffer(this, memory, length);
}

void BufferPool::Return(std::byte* memory, std::size_t length) {
  CHECK_GT(lent_, 0u);
  --lent_;
  const std::size_t size_class = ClassOf(length);
  if (size_class >= kClasses || cached_ + SizeOf(size_class) > max_cached_) {
    std::free(memory);
    return;
  }
  cached_ += SizeOf(size_class);
  free_[size_class].push_back(memory);
}

}  // namespace gabion::runtime
