#include "engine/block/staging.h"

#include "engine/base/align.h"
#include "engine/base/check.h"

namespace gabion::block {

StagingPool::Buffer::Buffer(StagingPool& pool, std::size_t size)
    : pool_(&pool),
      memory_(static_cast<std::byte*>(
          std::aligned_alloc(pool.alignment_, RoundUp(size, pool.alignment_)))),
      size_(size) {
  CHECK(memory_ != nullptr);
}

StagingPool::~StagingPool() {
  CHECK_EQ(available_, budget_);
  CHECK(waiting_.empty());
}

bool StagingPool::TryReserve(std::size_t size) {
  CHECK_GT(size, 0u);
  CHECK_LE(size, budget_);
  if (!waiting_.empty() || size > available_) return false;
  available_ -= size;
  return true;
}

void StagingPool::GiveBack(std::size_t size) {
  available_ += size;
  while (!waiting_.empty() && waiting_.front().size <= available_) {
    available_ -= waiting_.front().size;
    ready_.Push(waiting_.front().coroutine);
    waiting_.pop_front();
  }
}

}  // namespace gabion::block
