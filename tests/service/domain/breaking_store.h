// A store whose commits fail when the test says so.
#pragma once

#include <functional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "service/store/metadata_store.h"

namespace gabion::service {

// Owned by the test; as thread-safe as its gates.
class BreakingStore final : public MetadataStore {
 public:
  explicit BreakingStore(MetadataStore& store) : store_(store) {}

  // Asked before each commit: an error is returned, and nothing is written.
  void SetGate(std::function<absl::Status()> gate) { gate_ = std::move(gate); }
  // Asked before each read of a row: an error is returned instead of it.
  void SetReadGate(std::function<absl::Status()> gate) { read_gate_ = std::move(gate); }
  // Asked after each commit: an error is returned, but all is written.
  void SetAnswer(std::function<absl::Status()> answer) { answer_ = std::move(answer); }

  absl::StatusOr<Row> Get(std::string_view collection, std::string_view name) override {
    if (read_gate_) {
      if (const absl::Status open = read_gate_(); !open.ok()) return open;
    }
    return store_.Get(collection, name);
  }
  absl::StatusOr<RowsAt> GetMany(std::span<const RowKey> keys) override {
    return store_.GetMany(keys);
  }
  absl::StatusOr<Page> List(std::string_view collection, std::string_view after, size_t limit,
                            std::string_view prefix) override {
    return store_.List(collection, after, limit, prefix);
  }
  absl::StatusOr<uint64_t> Commit(const std::vector<Mutation>& steps) override {
    if (gate_) {
      if (const absl::Status open = gate_(); !open.ok()) return open;
    }
    const absl::StatusOr<uint64_t> committed = store_.Commit(steps);
    if (answer_ && committed.ok()) {
      if (const absl::Status answered = answer_(); !answered.ok()) return answered;
    }
    return committed;
  }
  absl::StatusOr<std::vector<Change>> Changes(uint64_t after, size_t limit) override {
    return store_.Changes(after, limit);
  }
  absl::Status TrimChanges(uint64_t through) override {
    trims_.push_back(through);
    return store_.TrimChanges(through);
  }
  // Up to where changes were trimmed, in the order of the calls.
  const std::vector<uint64_t>& trims() const { return trims_; }
  absl::StatusOr<uint64_t> Revision() override { return store_.Revision(); }
  absl::StatusOr<uint64_t> OldestRevision() override { return store_.OldestRevision(); }
  void SetListener(Listener listener) override { store_.SetListener(std::move(listener)); }
  absl::Status Ping() override { return store_.Ping(); }

 private:
  MetadataStore& store_;
  std::function<absl::Status()> gate_;
  std::function<absl::Status()> read_gate_;
  std::function<absl::Status()> answer_;
  std::vector<uint64_t> trims_;
};

}  // namespace gabion::service
