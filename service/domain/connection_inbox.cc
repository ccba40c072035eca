#include "service/domain/connection_inbox.h"

#include <utility>

namespace gabion::service {

void ConnectionInbox::Connected(const std::string& export_name,
                                const engine::ConnectionState& state) {
  Push({export_name, state.id, state});
}

void ConnectionInbox::Disconnected(const std::string& export_name, uint64_t id) {
  Push({export_name, id, std::nullopt});
}

void ConnectionInbox::Push(ConnectionEvent event) {
  const std::lock_guard lock(mutex_);
  if (next_.closed || next_.overflowed) return;
  if (next_.events.size() < max_events_) {
    next_.events.push_back(std::move(event));
  } else {
    next_.events.clear();
    next_.overflowed = true;
  }
  changed_.notify_one();
}

ConnectionInbox::Batch ConnectionInbox::Take(std::chrono::milliseconds gather) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return next_.closed || next_.overflowed || !next_.events.empty(); });
  changed_.wait_for(lock, gather, [this] { return next_.closed; });
  return TakeNow();
}

ConnectionInbox::Batch ConnectionInbox::TakeAfter(std::chrono::milliseconds time) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, time, [this] { return next_.closed; });
  return TakeNow();
}

ConnectionInbox::Batch ConnectionInbox::TakeNow() {
  Batch taken = std::exchange(next_, Batch());
  next_.closed = taken.closed;
  return taken;
}

void ConnectionInbox::Close() {
  const std::lock_guard lock(mutex_);
  next_ = Batch();
  next_.closed = true;
  changed_.notify_all();
}

}  // namespace gabion::service
