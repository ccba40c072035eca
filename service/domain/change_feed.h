// Who is told that the stored state has changed.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>

#include "absl/functional/any_invocable.h"
#include "service/store/metadata_store.h"

namespace gabion::service {

// The one listener of a store, for any number of others. It carries no changes: who is told reads
// the store's log from where he is, so that nothing is queued for anybody. Owned by the domain; any
// thread.
class ChangeFeed {
 public:
  using Changed = absl::AnyInvocable<void()>;

  // Listens to `store`, which outlives this. Nobody may commit during construction and destruction.
  explicit ChangeFeed(MetadataStore& store);
  ~ChangeFeed();
  ChangeFeed(const ChangeFeed&) = delete;
  ChangeFeed& operator=(const ChangeFeed&) = delete;

  // From now on `changed` is called after every commit that logs something: on the committer's
  // thread and in the way of all others, so it must not block, nor call this.
  uint64_t Subscribe(Changed changed);
  // When this returns it is not running, and is not called any more.
  void Unsubscribe(uint64_t id);

 private:
  void Tell();

  MetadataStore& store_;
  std::mutex mutex_;
  uint64_t next_id_ = 1;
  std::map<uint64_t, Changed> subscribers_;
};

}  // namespace gabion::service
