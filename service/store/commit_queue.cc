#include "service/store/commit_queue.h"

#include <algorithm>
#include <condition_variable>
#include <utility>

namespace gabion::service {

// On the stack of the thread that waits; others touch it under the queue's mutex only.
struct CommitQueue::Caller {
  PendingCommit commit;
  bool answered = false;
  std::condition_variable wake;  // answered, or it is this caller's turn to lead
};

absl::StatusOr<uint64_t> CommitQueue::Commit(const std::vector<Mutation>& steps) {
  Caller self{.commit = {.steps = &steps}};
  std::unique_lock lock(mutex_);
  callers_.push_back(&self);
  waiting_ = callers_.size();
  self.wake.wait(lock, [&] { return self.answered || (!led_ && callers_.front() == &self); });
  if (self.answered) return std::move(self.commit.answer);

  led_ = true;
  const auto size = static_cast<ptrdiff_t>(std::min(callers_.size(), kMaxGroup));
  const std::vector<Caller*> group(callers_.begin(), callers_.begin() + size);
  callers_.erase(callers_.begin(), callers_.begin() + size);
  waiting_ = callers_.size();
  lock.unlock();

  std::vector<PendingCommit*> commits;
  for (Caller* caller : group) commits.push_back(&caller->commit);
  write_(commits);

  lock.lock();
  led_ = false;
  if (!callers_.empty()) callers_.front()->wake.notify_one();
  for (Caller* caller : group) {
    caller->answered = true;
    caller->wake.notify_one();
  }
  return std::move(self.commit.answer);
}

}  // namespace gabion::service
