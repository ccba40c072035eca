// Exports with filters in an engine of the test's own.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "engine/base/reason.h"
#include "tests/engine/engine_fixture.h"

namespace gabion::engine {

inline constexpr uint64_t kBytes = 8 * kMiB;

inline std::string ReasonIn(const absl::Status& status) {
  const std::optional<Reason> reason = ReasonOf(status);
  return reason.has_value() ? reason->reason : std::string(status.message());
}

inline std::string MetadataIn(const absl::Status& status, const std::string& key) {
  const std::optional<Reason> reason = ReasonOf(status);
  for (const auto& [name, value] : reason.value_or(Reason{}).metadata) {
    if (name == key) return value;
  }
  return "";
}

inline FilterEntry Entry(const std::string& id, FilterOptions options) {
  return {.id = id, .options = std::move(options)};
}

// An image a of kBytes, and an export e of it with filters.
class EngineFiltersTest : public EngineTest {
 protected:
  void SetUp() override {
    EngineTest::SetUp();
    ASSERT_TRUE(CreateImage("a", kBytes).ok());
  }

  absl::StatusOr<ExportState> Create(std::vector<FilterEntry> entries) {
    ExportSpec spec = Export("e", "a");
    spec.filters = std::move(entries);
    return CreateExport(std::move(spec));
  }
  absl::StatusOr<ExportState> Change(std::vector<FilterEntry> entries,
                                     std::chrono::milliseconds timeout = std::chrono::seconds(30)) {
    ExportSpec spec = Export("e", "a");
    spec.filters = std::move(entries);
    spec.quiesce_timeout = timeout;
    return UpdateExport(std::move(spec));
  }
  absl::StatusOr<ExportState> Check(std::vector<FilterEntry> entries) {
    ExportSpec spec = Export("e", "a");
    spec.filters = std::move(entries);
    return Wait<absl::StatusOr<ExportState>>(
        [&](auto done) { engine_->CheckExport(std::move(spec), std::move(done)); });
  }
  uint64_t Counter(const std::string& entry, const std::string& counter) {
    using Statistics = absl::StatusOr<std::vector<FilterStatistics>>;
    const Statistics all = Wait<Statistics>(
        [&](auto done) { engine_->GetFilterStatistics("exports/e", std::move(done)); });
    EXPECT_TRUE(all.ok()) << all.status();
    for (const FilterStatistics& one : *all) {
      if (one.entry_id != entry) continue;
      for (const auto& [name, value] : one.statistics.counters) {
        if (name == counter) return value;
      }
    }
    ADD_FAILURE() << "no " << counter << " of " << entry;
    return 0;
  }
  std::vector<Explanation> Explain(const std::string& name, ByteRange range) {
    using Opened = absl::StatusOr<std::unique_ptr<Target>>;
    const Opened target =
        Wait<Opened>([&](auto done) { engine_->OpenExportTarget(name, std::move(done)); });
    EXPECT_TRUE(target.ok()) << target.status();
    using Told = absl::StatusOr<std::vector<Explanation>>;
    Told told = Wait<Told>([&](auto done) { (*target)->Explain(range, 100, std::move(done)); });
    EXPECT_TRUE(told.ok()) << told.status();
    return told.ok() ? *std::move(told) : std::vector<Explanation>();
  }
};

}  // namespace gabion::engine
