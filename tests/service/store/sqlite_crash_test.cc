// Kill -9 while many threads commit: what was acknowledged is there, and nothing is there by half.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <iterator>
#include <string>
#include <thread>
#include <vector>

#include "service/store/sqlite_store.h"
#include "tests/service/store/child.h"
#include "tests/service/temp_dir.h"
#include "tests/support/random_source.h"

namespace gabion::service {
namespace {

constexpr int kThreads = 6;
constexpr const char* kParts[] = {"images", "exports", "requests"};  // of each commit

// A commit that was acknowledged. Short enough for a pipe to take it whole.
struct Report {
  uint32_t thread;
  uint32_t number;
};

std::string NameOf(uint64_t round, const Report& report) {
  return std::to_string(round) + "/" + std::to_string(report.thread) + "/" +
         std::to_string(report.number);
}

// Commits and reports until it is killed. Every other commit fails, in the middle of its steps.
void CommitForever(MetadataStore& store, uint64_t round, uint32_t thread, int to_parent) {
  for (uint32_t number = 0;; ++number) {
    const Report report{thread, number};
    std::vector<Mutation> steps;
    for (const char* part : kParts) steps.push_back(Insert(part, NameOf(round, report), "v"));
    if (!store.Commit(steps).ok()) _exit(1);
    if (write(to_parent, &report, sizeof(report)) != sizeof(report)) _exit(1);
    const std::vector<Mutation> failing = {Insert("images", NameOf(round, report) + "/no", "v"),
                                           steps.back()};
    if (!absl::IsAlreadyExists(store.Commit(failing).status())) _exit(1);
  }
}

void RunChild(const std::string& path, uint64_t round, int to_parent) {
  auto store = OpenSqliteStore(path);
  if (!store.ok()) _exit(1);
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] { CommitForever(**store, round, t, to_parent); });
  }
  for (std::thread& thread : threads) thread.join();
}

class SqliteCrashTest : public testing::Test {
 protected:
  // Kills a child after its `kill_after`-th report, whatever it is doing then.
  void Crash(uint64_t round, size_t kill_after) {
    const Child child =
        Child::Start([&](int to_parent) { RunChild(dir_ / "db", round, to_parent); });
    Report report;
    size_t heard = 0;
    const auto hear = [&] {
      if (read(child.from, &report, sizeof(report)) != sizeof(report)) return false;
      acknowledged_.push_back(NameOf(round, report));
      ++heard;
      return true;
    };
    while (heard < kill_after && hear()) {
    }
    EXPECT_EQ(heard, kill_after) << "the child ended by itself";
    child.Kill();
    while (hear()) {
    }
    close(child.from);
  }

  static std::vector<std::string> NamesIn(MetadataStore& store, const char* collection) {
    std::vector<std::string> names;
    const auto page = store.List(collection, "", 1'000'000);
    EXPECT_TRUE(page.ok()) << page.status();
    for (const Row& row : page->rows) names.push_back(row.name);
    return names;
  }

  TempDir dir_;
  std::vector<std::string> acknowledged_;  // in all rounds
};

TEST_F(SqliteCrashTest, WhatWasAcknowledgedSurvivesAndNothingIsThereByHalf) {
  test::RandomSource random;
  for (uint64_t round = 0; round < 6; ++round) {
    Crash(round, random.Below(400));
    auto opened = OpenSqliteStore(dir_ / "db");
    ASSERT_TRUE(opened.ok()) << opened.status();
    MetadataStore& store = **opened;
    for (const std::string& name : acknowledged_) {
      for (const char* part : kParts) {
        ASSERT_TRUE(store.Get(part, name).ok()) << part << " of " << name;
      }
    }
    const std::vector<std::string> whole = NamesIn(store, kParts[0]);
    for (const char* part : kParts) ASSERT_EQ(NamesIn(store, part), whole) << part;
    ASSERT_EQ(*store.Revision(), whole.size() * std::size(kParts));
    ASSERT_EQ(store.Changes(0, 1'000'000)->size(), whole.size() * (std::size(kParts) - 1));
  }
}

}  // namespace
}  // namespace gabion::service
