#include "service/domain/maintenance.h"

#include <gtest/gtest.h>

#include <vector>

#include "service/store/memory_store.h"
#include "tests/service/domain/breaking_store.h"

namespace gabion::service {
namespace {

class MaintenanceTest : public testing::Test {
 protected:
  static constexpr uint64_t kKept = 100;

  MaintenanceTest()
      : kept_(NewMemoryStore()),
        store_(*kept_),
        tokens_(std::string(32, 'k')),
        requests_(store_, locks_),
        operations_(store_, locks_, tokens_, NullLogger(), {}),
        maintenance_(store_, requests_, operations_, NullLogger(),
                     {.every = std::chrono::hours(1), .keep_changes = kKept}) {}

  void Change(size_t times) {
    const std::vector<Mutation> steps(times, Touch("images", "images/a"));
    ASSERT_TRUE(store_.Commit(steps).ok());
  }
  void Run() {
    const absl::Status run = maintenance_.Run();
    ASSERT_TRUE(run.ok()) << run;
  }

  std::unique_ptr<MetadataStore> kept_;
  BreakingStore store_;
  ResourceLocks locks_;
  PageTokens tokens_;
  RequestLog requests_;
  OperationManager operations_;
  Maintenance maintenance_;
};

TEST_F(MaintenanceTest, KeepsTheLastChanges) {
  Change(kKept);
  Run();
  EXPECT_EQ(store_.OldestRevision().value_or(1), 0u);
  Change(10);
  Run();
  EXPECT_EQ(store_.OldestRevision().value_or(0), 10u);
}

TEST_F(MaintenanceTest, ManyChangesAreTrimmedInPieces) {
  Change(20'000 + kKept);
  Run();
  EXPECT_EQ(store_.OldestRevision().value_or(0), 20'000u);
  uint64_t before = 0;
  for (const uint64_t through : store_.trims()) {
    EXPECT_LE(through - before, 4096u);
    before = through;
  }
  EXPECT_EQ(store_.trims().size(), 5u);
}

}  // namespace
}  // namespace gabion::service
