#include "service/store/memory_store.h"

#include <algorithm>
#include <deque>
#include <map>
#include <mutex>
#include <utility>

#include "engine/base/check.h"
#include "engine/base/status_macros.h"
#include "service/store/expectation.h"

namespace gabion::service {
namespace {

using Key = std::pair<std::string, std::string>;  // collection, name

class MemoryStore final : public MetadataStore {
 public:
  absl::StatusOr<Row> Get(std::string_view collection, std::string_view name) override {
    const std::lock_guard lock(mutex_);
    std::optional<Row> row = Find(Key(collection, name));
    if (!row.has_value()) return NoSuchRow(name);
    return *std::move(row);
  }

  absl::StatusOr<RowsAt> GetMany(std::span<const RowKey> keys) override {
    const std::lock_guard lock(mutex_);
    RowsAt found;
    found.revision = revision_;
    for (const RowKey& key : keys) found.rows.push_back(Find(Key(key.collection, key.name)));
    return found;
  }

  absl::StatusOr<Page> List(std::string_view collection, std::string_view after, size_t limit,
                            std::string_view prefix) override {
    CHECK_GT(limit, 0u);
    const std::lock_guard lock(mutex_);
    Page page;
    page.revision = revision_;
    auto it = after < prefix ? rows_.lower_bound(Key(collection, prefix))
                             : rows_.upper_bound(Key(collection, after));
    for (; it != rows_.end() && it->first.first == collection; ++it) {
      if (!it->first.second.starts_with(prefix)) break;
      if (page.rows.size() == limit) {
        page.more = true;
        break;
      }
      page.rows.push_back(it->second);
    }
    return page;
  }

  absl::StatusOr<uint64_t> Commit(const std::vector<Mutation>& steps) override {
    CheckSteps(steps);
    const std::lock_guard one_at_a_time(commit_mutex_);
    ASSIGN_OR_RETURN(const uint64_t revision, Apply(steps));
    if (listener_ && AnyLogged(steps)) listener_(revision);
    return revision;
  }

  absl::StatusOr<std::vector<Change>> Changes(uint64_t after, size_t limit) override {
    const std::lock_guard lock(mutex_);
    RETURN_IF_ERROR(CheckLogPosition(after, trimmed_through_, revision_));
    std::vector<Change> changes;
    for (auto it = FirstAfter(after); it != log_.end() && changes.size() < limit; ++it) {
      changes.push_back(*it);
    }
    return changes;
  }

  absl::Status TrimChanges(uint64_t through) override {
    const std::lock_guard lock(mutex_);
    while (!log_.empty() && log_.front().revision <= through) {
      trimmed_through_ = log_.front().revision;
      log_.pop_front();
    }
    return absl::OkStatus();
  }

  absl::StatusOr<uint64_t> Revision() override {
    const std::lock_guard lock(mutex_);
    return revision_;
  }

  absl::StatusOr<uint64_t> OldestRevision() override {
    const std::lock_guard lock(mutex_);
    return trimmed_through_;
  }

  void SetListener(Listener listener) override { listener_ = std::move(listener); }

  absl::Status Ping() override { return absl::OkStatus(); }

 private:
  using Rows = std::map<Key, Row>;

  std::optional<Row> Find(const Key& key) const {
    const auto found = rows_.find(key);
    return found == rows_.end() ? std::nullopt : std::optional(found->second);
  }

  std::deque<Change>::iterator FirstAfter(uint64_t revision) {
    return std::ranges::upper_bound(log_, revision, {}, &Change::revision);
  }

  // All or nothing.
  absl::StatusOr<uint64_t> Apply(const std::vector<Mutation>& steps) {
    const std::lock_guard lock(mutex_);
    std::vector<std::pair<Key, std::optional<Row>>> before;  // what the steps have replaced
    uint64_t revision = revision_;
    for (const Mutation& step : steps) {
      ++revision;
      if (step.kind == Mutation::Kind::kTouch) continue;
      const Key key(step.collection, step.name);
      before.emplace_back(key, Find(key));
      const std::optional<Row>& row = before.back().second;
      const absl::Status expected =
          CheckExpectation(step, row.has_value() ? std::optional(row->revision) : std::nullopt);
      if (!expected.ok()) {
        for (auto it = before.rbegin(); it != before.rend(); ++it) Set(it->first, it->second);
        return expected;
      }
      const bool remove = step.kind == Mutation::Kind::kDelete;
      Set(key, remove ? std::nullopt : std::optional(Row{step.name, step.value, revision}));
    }
    for (const Mutation& step : steps) {
      ++revision_;
      if (!IsLogged(step.collection)) continue;
      log_.push_back({revision_, step.kind, step.collection, step.name});
    }
    return revision_;
  }

  void Set(const Key& key, std::optional<Row> row) {
    if (row.has_value()) {
      rows_[key] = *std::move(row);
    } else {
      rows_.erase(key);
    }
  }

  std::mutex commit_mutex_;  // held for a commit and its call of the listener
  Listener listener_;        // under commit_mutex_
  std::mutex mutex_;         // guards everything below; taken after commit_mutex_
  Rows rows_;
  std::deque<Change> log_;        // what is logged of revisions trimmed_through_ + 1 to revision_
  uint64_t trimmed_through_ = 0;  // the last change that was trimmed
  uint64_t revision_ = 0;
};

}  // namespace

std::unique_ptr<MetadataStore> NewMemoryStore() { return std::make_unique<MemoryStore>(); }

}  // namespace gabion::service
