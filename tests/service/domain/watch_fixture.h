// What tests of watches need: resources that are what their rows say, and messages as text.
#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "service/domain/resource_views.h"
#include "service/errors.h"
#include "service/store/metadata_store.h"

namespace gabion::service {

// Resources whose only content is the value of their row. Owned by the test; thread-safe.
class StoredViews final : public ResourceViews {
 public:
  explicit StoredViews(MetadataStore& store) : store_(store) {}

  // Called with the name of each resource before it is read. Set before the first watch.
  void SetBeforeRead(std::function<void(const std::string&)> before) {
    before_ = std::move(before);
  }
  // How many resources of a collection have been read.
  int reads(const std::string& collection) const {
    const std::lock_guard lock(mutex_);
    const auto found = reads_.find(collection);
    return found == reads_.end() ? 0 : found->second;
  }

  static std::string CollectionOf(const std::string& name) {
    if (name.find("/connections/") != std::string::npos) return "connections";
    return name.substr(0, name.find('/'));
  }

  std::vector<absl::StatusOr<v1::WatchResponse>> View(std::span<const std::string> names) override {
    std::vector<absl::StatusOr<v1::WatchResponse>> views;
    for (const std::string& name : names) views.push_back(ViewOne(name));
    return views;
  }
  absl::StatusOr<std::vector<std::string>> Configured(std::string_view collection) override {
    std::vector<std::string> names;
    if (collection == "pools") names = {"pools/default", "pools/other"};
    return names;
  }

 private:
  absl::StatusOr<v1::WatchResponse> ViewOne(const std::string& name) {
    if (before_) before_(name);
    const std::string collection = CollectionOf(name);
    {
      const std::lock_guard lock(mutex_);
      ++reads_[collection];
    }
    v1::WatchResponse view;
    view.set_name(name);
    if (collection == "pools") {
      view.mutable_pool()->set_name(name);
      return view;
    }
    absl::StatusOr<Row> row = store_.Get(collection, name);
    if (!row.ok()) return row.status();
    if (collection == "images") view.mutable_image()->set_uid(row->value);
    if (collection == "exports") view.mutable_export_()->set_uid(row->value);
    if (collection == "connections") view.mutable_connection()->set_peer_address(row->value);
    if (collection == "operations") view.mutable_operation()->set_name(row->value);
    return view;
  }

  MetadataStore& store_;
  std::function<void(const std::string&)> before_;
  mutable std::mutex mutex_;
  std::map<std::string, int> reads_;
};

inline std::string ContentOf(const v1::WatchResponse& message) {
  return absl::StrCat(message.image().uid(), message.export_().uid(),
                      message.connection().peer_address(), message.operation().name());
}

// "PUT 3 images/a=x", "DELETED 4 images/a", "BOOKMARK 4", "INITIAL_DONE 4".
inline std::string TextOf(const v1::WatchResponse& message) {
  std::string text = v1::WatchResponse::Kind_Name(message.kind()).substr(5);
  absl::StrAppend(&text, " ", message.revision());
  if (!message.name().empty()) absl::StrAppend(&text, " ", message.name());
  if (message.kind() == v1::WatchResponse::KIND_PUT) {
    absl::StrAppend(&text, "=", ContentOf(message));
  }
  return text;
}

// What a client knows who applies the messages that it is told: content by name.
class Mirror {
 public:
  void Apply(const v1::WatchResponse& message) {
    if (message.kind() == v1::WatchResponse::KIND_PUT) {
      known_[message.name()] = ContentOf(message);
    } else if (message.kind() == v1::WatchResponse::KIND_DELETED) {
      known_.erase(message.name());
    }
  }
  const std::map<std::string, std::string>& known() const { return known_; }

 private:
  std::map<std::string, std::string> known_;
};

// All rows of a collection: value by name.
inline std::map<std::string, std::string> RowsOf(MetadataStore& store,
                                                 std::string_view collection) {
  std::map<std::string, std::string> rows;
  const absl::StatusOr<Page> page = store.List(collection, "", 100'000);
  if (page.ok()) {
    for (const Row& row : page->rows) rows[row.name] = row.value;
  }
  return rows;
}

}  // namespace gabion::service
