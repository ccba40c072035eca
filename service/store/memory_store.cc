#include "service/store/memory_store.h"

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
    const auto found = rows_.find(Key(collection, name));
    if (found == rows_.end()) return NoSuchRow(name);
    return found->second;
  }

  absl::StatusOr<Page> List(std::string_view collection, std::string_view after,
                            size_t limit) override {
    CHECK_GT(limit, 0u);
    const std::lock_guard lock(mutex_);
    Page page;
    page.revision = revision_;
    auto it = rows_.upper_bound(Key(collection, after));
    for (; it != rows_.end() && it->first.first == collection; ++it) {
      if (page.rows.size() == limit) {
        page.more = true;
        break;
      }
      page.rows.push_back(it->second);
    }
    return page;
  }

  absl::StatusOr<uint64_t> Commit(const std::vector<Mutation>& steps) override {
    CHECK(!steps.empty());
    const std::lock_guard lock(mutex_);
    std::map<Key, Row> rows = rows_;  // all or nothing
    uint64_t revision = revision_;
    for (const Mutation& step : steps) RETURN_IF_ERROR(Apply(step, ++revision, &rows));
    for (const Mutation& step : steps) {
      log_.push_back({++revision_, step.kind, step.collection, step.name});
    }
    rows_ = std::move(rows);
    return revision_;
  }

  absl::StatusOr<std::vector<Change>> Changes(uint64_t after, size_t limit) override {
    const std::lock_guard lock(mutex_);
    RETURN_IF_ERROR(CheckLogPosition(after, trimmed_through_, revision_));
    std::vector<Change> changes;
    for (size_t i = after - trimmed_through_; i < log_.size() && changes.size() < limit; ++i) {
      changes.push_back(log_[i]);
    }
    return changes;
  }

  absl::Status TrimChanges(uint64_t through) override {
    const std::lock_guard lock(mutex_);
    through = std::min(through, revision_);
    for (; trimmed_through_ < through; ++trimmed_through_) log_.pop_front();
    return absl::OkStatus();
  }

  absl::StatusOr<uint64_t> Revision() override {
    const std::lock_guard lock(mutex_);
    return revision_;
  }

 private:
  static absl::Status Apply(const Mutation& step, uint64_t revision, std::map<Key, Row>* rows) {
    const Key key(step.collection, step.name);
    const auto found = rows->find(key);
    RETURN_IF_ERROR(CheckExpectation(
        step, found == rows->end() ? std::nullopt : std::optional(found->second.revision)));
    if (step.kind == Mutation::Kind::kDelete) {
      rows->erase(found);
    } else {
      (*rows)[key] = Row{step.name, step.value, revision};
    }
    return absl::OkStatus();
  }

  std::mutex mutex_;
  std::map<Key, Row> rows_;
  std::deque<Change> log_;  // revisions trimmed_through_ + 1 to revision_
  uint64_t trimmed_through_ = 0;
  uint64_t revision_ = 0;
};

}  // namespace

std::unique_ptr<MetadataStore> NewMemoryStore() { return std::make_unique<MemoryStore>(); }

}  // namespace gabion::service
