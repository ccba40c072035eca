#include "service/domain/watcher.h"

#include <algorithm>
#include <iterator>
#include <unordered_map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/status_macros.h"
#include "engine/base/text.h"
#include "service/errors.h"

namespace gabion::service {
namespace {

constexpr std::size_t kPage = 256;  // changes or rows that are read at once
constexpr std::size_t kBatch = 64;  // resources that are read at once
constexpr std::string_view kCollections[] = {"pools",   "images",      "filters",
                                             "exports", "connections", "operations"};

// `name` is `parent` or below it; everything is if that is empty.
bool IsWithin(std::string_view parent, std::string_view name) {
  if (parent.empty()) return true;
  return name.starts_with(parent) && (name.size() == parent.size() || name[parent.size()] == '/');
}

absl::Status CheckRequest(const v1::WatchRequest& request) {
  for (int i = 0; i < request.collections_size(); ++i) {
    const std::string& collection = request.collections(i);
    if (std::ranges::find(kCollections, collection) != std::end(kCollections)) continue;
    const std::string text = absl::StrCat("There is no collection \"", collection, "\" to watch.");
    return Error(reason::kFieldInvalid, text)
        .Field(absl::StrCat("collections[", i, "]"), text)
        .Metadata("value", collection)
        .Metadata("allowed", "pools, images, exports, connections, operations");
  }
  if (request.send_initial() && request.after_revision() != 0) {
    constexpr std::string_view kText =
        "after_revision and send_initial exclude each other: a watch tells what is there, or what "
        "has changed since a revision.";
    return Error(reason::kFieldInvalid, kText)
        .Field("after_revision", kText)
        .Metadata("value", absl::StrCat(request.after_revision()));
  }
  return absl::OkStatus();
}

}  // namespace

Watch::Watch(MetadataStore& store, ResourceViews& views, const v1::WatchRequest& request)
    : store_(store), views_(views), parent_(request.parent()), initial_(request.send_initial()) {
  for (const std::string_view collection : kCollections) {
    const auto& asked = request.collections();
    if (asked.empty() || std::ranges::find(asked, collection) != asked.end()) {
      collections_.emplace_back(collection);
    }
  }
}

absl::StatusOr<std::unique_ptr<Watch>> Watch::Start(MetadataStore& store, ResourceViews& views,
                                                    const v1::WatchRequest& request) {
  RETURN_IF_ERROR(CheckRequest(request));
  std::unique_ptr<Watch> watch(new Watch(store, views, request));
  RETURN_IF_ERROR(watch->SetPosition(request));
  return watch;
}

absl::Status Watch::SetPosition(const v1::WatchRequest& request) {
  if (request.after_revision() == 0) {
    ASSIGN_OR_RETURN(position_, store_.Revision());
  } else {
    position_ = request.after_revision();
    const absl::Status there = store_.Changes(position_, 1).status();
    if (absl::IsOutOfRange(there)) {
      ASSIGN_OR_RETURN(const uint64_t oldest, store_.OldestRevision());
      return Error(reason::kRevisionCompacted,
                   absl::StrCat("after_revision ", position_,
                                position_ < oldest ? " is older than the log of changes, which "
                                                     "begins after revision "
                                                   : " has not been reached; the log of changes "
                                                     "begins after revision ",
                                oldest, ". List the resources and go on from there."))
          .Metadata("oldest-revision", absl::StrCat(oldest))
          .Field("after_revision", "No revision that the log of changes can go on from.");
    }
    RETURN_IF_ERROR(there);
  }
  told_ = position_;
  return absl::OkStatus();
}

absl::StatusOr<std::optional<v1::WatchResponse>> Watch::Next() {
  caught_up_ = false;
  if (next_ == items_.size()) {
    items_.clear();
    seen_.clear();
    next_ = 0;
    next_seen_ = 0;
    RETURN_IF_ERROR(initial_ ? LoadInitial() : LoadChanges());
  }
  while (next_ < items_.size()) {
    ASSIGN_OR_RETURN(std::optional<v1::WatchResponse> message, Tell());
    ++next_;
    if (!message.has_value()) continue;
    if (message->revision() != 0) told_ = message->revision();
    return message;
  }
  return std::optional<v1::WatchResponse>();
}

v1::WatchResponse Watch::Bookmark() {
  CHECK(caught_up_);
  told_ = position_;
  v1::WatchResponse bookmark;
  bookmark.set_kind(v1::WatchResponse::KIND_BOOKMARK);
  bookmark.set_revision(position_);
  return bookmark;
}

absl::Status Watch::LoadInitial() {
  if (collection_at_ == collections_.size()) {
    initial_ = false;
    items_.push_back({v1::WatchResponse::KIND_INITIAL_DONE, position_, ""});
    return absl::OkStatus();
  }
  const std::string& collection = collections_[collection_at_];
  ASSIGN_OR_RETURN(std::vector<std::string> configured, views_.Configured(collection));
  for (std::string& name : configured) {
    if (last_row_.empty() && IsWithin(parent_, name)) {
      items_.push_back({v1::WatchResponse::KIND_PUT, 0, std::move(name)});
    }
  }
  bool more = false;
  RETURN_IF_ERROR(LoadRows(collection, &more));
  if (!more) {
    ++collection_at_;
    last_row_.clear();
  }
  return absl::OkStatus();
}

absl::Status Watch::LoadRows(std::string_view collection, bool* more) {
  std::string below;  // where the names of the parent's children begin
  if (!parent_.empty()) {
    below = absl::StrCat(parent_, "/");
    if (last_row_.empty()) {
      const absl::Status itself = store_.Get(collection, parent_).status();
      if (itself.ok()) items_.push_back({v1::WatchResponse::KIND_PUT, 0, parent_});
      if (!itself.ok() && !absl::IsNotFound(itself)) return itself;
    }
  }
  ASSIGN_OR_RETURN(const Page page, store_.List(collection, last_row_, kPage, below));
  for (const Row& row : page.rows) {
    items_.push_back({v1::WatchResponse::KIND_PUT, 0, row.name});
  }
  *more = page.more;
  if (page.more) last_row_ = page.rows.back().name;
  return absl::OkStatus();
}

absl::Status Watch::LoadChanges() {
  ASSIGN_OR_RETURN(const uint64_t reached, store_.Revision());
  const absl::StatusOr<std::vector<Change>> changes = store_.Changes(position_, kPage);
  if (absl::IsOutOfRange(changes.status())) return Lagged();
  if (!changes.ok()) return changes.status();
  std::unordered_map<std::string_view, std::size_t> at;  // index of a name's item
  for (const Change& change : *changes) {
    if (!Follows(change.collection, change.name)) continue;
    const auto kind = change.kind == Mutation::Kind::kDelete ? v1::WatchResponse::KIND_DELETED
                                                             : v1::WatchResponse::KIND_PUT;
    const auto [found, first] = at.emplace(change.name, items_.size());
    if (first) {
      items_.push_back({kind, change.revision, change.name});
    } else if (change.kind != Mutation::Kind::kTouch) {
      // What is touched after its deletion stays deleted.
      items_[found->second].kind = kind;
    }
  }
  if (!changes->empty()) position_ = changes->back().revision;
  if (changes->size() < kPage) position_ = std::max(position_, reached);
  caught_up_ = changes->empty();
  return absl::OkStatus();
}

bool Watch::Follows(std::string_view collection, std::string_view name) const {
  return IsWithin(parent_, name) &&
         std::ranges::find(collections_, collection) != collections_.end();
}

absl::StatusOr<std::optional<v1::WatchResponse>> Watch::Tell() {
  const Item& item = items_[next_];
  v1::WatchResponse message;
  if (item.kind == v1::WatchResponse::KIND_PUT) {
    if (next_seen_ == seen_.size()) {
      std::vector<std::string> names;
      for (std::size_t i = next_; i < items_.size() && names.size() < kBatch; ++i) {
        if (items_[i].kind == v1::WatchResponse::KIND_PUT) names.push_back(items_[i].name);
      }
      seen_ = views_.View(names);
      next_seen_ = 0;
      CHECK_EQ(seen_.size(), names.size());
    }
    absl::StatusOr<v1::WatchResponse>& seen = seen_[next_seen_++];
    if (absl::IsNotFound(seen.status())) return std::optional<v1::WatchResponse>();  // (2)
    if (!seen.ok()) return seen.status();
    message = *std::move(seen);
  }
  message.set_kind(item.kind);
  message.set_revision(item.revision);
  message.set_name(item.name);
  return std::optional<v1::WatchResponse>(std::move(message));
}

absl::Status Watch::Lagged() const {
  return Error(reason::kWatchLagged,
               absl::StrCat("This watch was read too slowly: changes after revision ", told_,
                            " are no longer in the log. Go on from there, or list again."))
      .Metadata("revision", absl::StrCat(told_));
}

}  // namespace gabion::service
