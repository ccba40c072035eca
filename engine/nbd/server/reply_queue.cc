#include "engine/nbd/server/reply_queue.h"

#include <utility>

#include "engine/base/check.h"

namespace gabion::nbd {
namespace {

constexpr std::size_t kMaxFree = 256;       // replies kept for reuse per connection
constexpr std::size_t kMaxFreePieces = 16;  // those with room for more are not worth their memory

}  // namespace

ReplyQueue::ReplyQueue(runtime::Reactor& reactor, io::Stream& stream, Owner& owner)
    : reactor_(reactor), stream_(stream), owner_(owner), progress_(reactor.ready()) {}

ReplyQueue::~ReplyQueue() { CHECK(idle()); }

Reply& ReplyQueue::New() {
  CHECK(filling_ == nullptr);
  if (free_.empty()) {
    filling_ = std::make_unique<Reply>();
  } else {
    filling_ = std::move(free_.back());
    free_.pop_back();
  }
  return *filling_;
}

void ReplyQueue::Push(Reply& reply) {
  CHECK(filling_.get() == &reply);
  waiting_.push_back(std::move(filling_));
  ++pushed_;
  if (hook_waits_ || !sending_.empty()) return;
  hook_waits_ = true;
  reactor_.AtTurnEnd(*this);
}

void ReplyQueue::OnTurnEnd() {
  hook_waits_ = false;
  send_ = Send();
}

Task<void> ReplyQueue::Send() {
  while (!waiting_.empty()) {
    sending_.swap(waiting_);
    pieces_.clear();
    for (const auto& reply : sending_) {
      pieces_.insert(pieces_.end(), reply->pieces.begin(), reply->pieces.end());
    }
    if (!failed_) {
      const absl::Status status = co_await stream_.WriteAll(pieces_);
      if (!status.ok()) {
        failed_ = true;
        owner_.OnSendFailed(status);
      }
    }
    Recycle();
  }
  if (pieces_.capacity() > kMaxFree * kMaxFreePieces) std::vector<Bytes>().swap(pieces_);
  progress_.WakeAll();
}

void ReplyQueue::Recycle() {
  for (auto& reply : sending_) {
    owner_.OnReplySent(reply->held_bytes, reply->completes);
    reply->heads = {};
    reply->payload = {};
    reply->pieces.clear();
    reply->held_bytes = 0;
    reply->completes = false;
    const bool small = reply->pieces.capacity() <= kMaxFreePieces;
    if (small && free_.size() < kMaxFree) free_.push_back(std::move(reply));
  }
  finished_ += sending_.size();
  sending_.clear();
  progress_.WakeAll();
}

Task<void> ReplyQueue::DrainPushed() {
  const uint64_t target = pushed_;
  while (finished_ < target) co_await progress_.Wait();
}

Task<void> ReplyQueue::Drain() {
  while (!idle()) co_await progress_.Wait();
}

}  // namespace gabion::nbd
