#include "engine/block/range_lock.h"

#include <iterator>

#include "engine/base/align.h"
#include "engine/base/check.h"

namespace gabion::block {

RangeLock::~RangeLock() { CHECK(queue_.empty()); }

bool RangeLock::Conflict(const Entry& a, const Entry& b) {
  const bool both_shared = a.mode == RangeLockMode::kShared && b.mode == RangeLockMode::kShared;
  return !both_shared && Overlaps(a.range, b.range);
}

RangeLock::Queue::iterator RangeLock::Enqueue(ByteRange range, RangeLockMode mode) {
  if (free_.empty()) free_.emplace_back();
  const Queue::iterator added = free_.begin();
  *added = Entry{range, mode};
  for (const Entry& earlier : queue_) {
    if (Conflict(earlier, *added)) ++added->conflicts;
  }
  queue_.splice(queue_.end(), free_, added);
  return added;
}

void RangeLock::Release(Queue::iterator entry) {
  CHECK_EQ(entry->conflicts, 0u);
  for (auto later = std::next(entry); later != queue_.end(); ++later) {
    if (Conflict(*entry, *later) && --later->conflicts == 0) ready_.Push(later->waiter);
  }
  free_.splice(free_.begin(), queue_, entry);
}

}  // namespace gabion::block
