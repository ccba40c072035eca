#include "service/domain/change_feed.h"

#include <utility>

namespace gabion::service {

ChangeFeed::ChangeFeed(MetadataStore& store) : store_(store) {
  store_.SetListener([this](uint64_t /*revision*/) { Tell(); });
}

ChangeFeed::~ChangeFeed() { store_.SetListener(nullptr); }

uint64_t ChangeFeed::Subscribe(Changed changed) {
  const std::lock_guard lock(mutex_);
  subscribers_.emplace(next_id_, std::move(changed));
  return next_id_++;
}

void ChangeFeed::Unsubscribe(uint64_t id) {
  const std::lock_guard lock(mutex_);
  subscribers_.erase(id);
}

void ChangeFeed::Tell() {
  const std::lock_guard lock(mutex_);
  for (auto& [id, changed] : subscribers_) changed();
}

}  // namespace gabion::service
