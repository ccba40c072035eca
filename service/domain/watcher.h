// One watch: what it has told and what it tells next.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gabion/v1/watch.pb.h"
#include "service/domain/resource_views.h"
#include "service/store/metadata_store.h"

namespace gabion::service {

// A cursor into the store's change log, so that a watch has no queue: nobody waits for a slow
// reader, and what it holds is one page of names and a few resources. It falls behind only if the
// log is trimmed past its cursor.
//
// (1) A message's revision is that of the first change that it stands for; later changes of the
//     same resource in the same page are part of it. So who goes on behind any message misses
//     nothing, and may hear of a later change twice.
// (2) A resource is read after the log, so a PUT is at least as new as its revision says. If it is
//     gone by then nothing is said: its deletion is further on in the log.
// (3) The revision at which the initial state is done is taken before the first row is read, so
//     every change that the rows may or may not show comes after it.
//
// Owned by a stream; one thread at a time, of the executor, because it blocks.
class Watch {
 public:
  // Both outlive the watch. FIELD_INVALID for what the request's rules cannot say,
  // REVISION_COMPACTED (metadata oldest-revision) if it cannot start where it is told to.
  // REQUIRES: the request has passed the rules of its fields.
  static absl::StatusOr<std::unique_ptr<Watch>> Start(MetadataStore& store, ResourceViews& views,
                                                      const v1::WatchRequest& request);

  // The next message; nothing if there is none at this moment. Does a bounded amount of work: if it
  // returns nothing and is not caught_up(), there may be more. WATCH_LAGGED (metadata revision: the
  // last one that was told) if the log has been trimmed past it. No call after an error.
  absl::StatusOr<std::optional<v1::WatchResponse>> Next();

  // The last Next() found all that there is told: nothing will come before the store changes.
  bool caught_up() const { return caught_up_; }

  // A bookmark at the present position, which grows also with changes that are not for this watch.
  // REQUIRES: caught_up().
  v1::WatchResponse Bookmark();

 private:
  struct Item {
    v1::WatchResponse::Kind kind;
    uint64_t revision;
    std::string name;
  };

  Watch(MetadataStore& store, ResourceViews& views, const v1::WatchRequest& request);

  absl::Status SetPosition(const v1::WatchRequest& request);
  // Each replaces the items, which have all been told, by the next page of them.
  absl::Status LoadInitial();
  absl::Status LoadChanges();
  absl::Status LoadRows(std::string_view collection, bool* more);

  bool Follows(std::string_view collection, std::string_view name) const;
  // The message of items_[next_]; nothing if there is nothing to say.
  absl::StatusOr<std::optional<v1::WatchResponse>> Tell();
  absl::Status Lagged() const;

  MetadataStore& store_;
  ResourceViews& views_;
  std::vector<std::string> collections_;  // each once
  std::string parent_;

  uint64_t position_ = 0;  // every change up to it is told, in items_, or not for this watch
  uint64_t told_ = 0;      // of the last message
  bool caught_up_ = false;

  bool initial_ = false;           // not done telling what is there
  std::size_t collection_at_ = 0;  // index of the collection that is being told
  std::string last_row_;           // of that collection that is in items_ or before

  std::vector<Item> items_;
  std::size_t next_ = 0;                                 // index of the item that is told next
  std::vector<absl::StatusOr<v1::WatchResponse>> seen_;  // of the PUTs from items_[next_] on
  std::size_t next_seen_ = 0;
};

}  // namespace gabion::service
