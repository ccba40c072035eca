// What every MetadataStore must do.
#include "service/store/metadata_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <barrier>
#include <map>
#include <memory>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "service/store/memory_store.h"
#include "service/store/sqlite_store.h"
#include "tests/service/temp_dir.h"

namespace gabion::service {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

enum class Backend { kMemory, kSqlite };

class MetadataStoreTest : public testing::TestWithParam<Backend> {
 protected:
  void SetUp() override {
    if (GetParam() == Backend::kMemory) {
      store_ = NewMemoryStore();
    } else {
      auto opened = OpenSqliteStore(dir_ / "gabion.db");
      ASSERT_TRUE(opened.ok()) << opened.status();
      store_ = *std::move(opened);
    }
  }

  uint64_t Commit(const std::vector<Mutation>& steps) {
    const auto revision = store_->Commit(steps);
    EXPECT_TRUE(revision.ok()) << revision.status();
    return revision.value_or(0);
  }
  absl::StatusCode CommitCode(const std::vector<Mutation>& steps) {
    return store_->Commit(steps).status().code();
  }
  std::vector<std::string> Names(const std::string& collection) {
    std::vector<std::string> names;
    const auto page = store_->List(collection, "", 1000);
    EXPECT_TRUE(page.ok()) << page.status();
    for (const Row& row : page->rows) names.push_back(row.name);
    return names;
  }

  TempDir dir_;
  std::unique_ptr<MetadataStore> store_;
};

TEST_P(MetadataStoreTest, ANewStoreIsEmptyAtRevisionZero) {
  EXPECT_EQ(*store_->Revision(), 0u);
  EXPECT_EQ(store_->Get("images", "images/a").status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Names("images"), IsEmpty());
  EXPECT_THAT(*store_->Changes(0, 10), IsEmpty());
}

TEST_P(MetadataStoreTest, ARowIsReadAsItWasWritten) {
  const std::string bytes("\0\xFF\n'\"", 5);
  const uint64_t revision = Commit({Insert("images", "images/a", bytes)});
  EXPECT_EQ(*store_->Get("images", "images/a"), (Row{"images/a", bytes, revision}));
  Commit({Put("images", "images/a", "")});
  EXPECT_EQ(store_->Get("images", "images/a")->value, "");
}

TEST_P(MetadataStoreTest, CollectionsDoNotMix) {
  Commit({Insert("images", "x", "1"), Insert("exports", "x", "2")});
  EXPECT_EQ(store_->Get("images", "x")->value, "1");
  EXPECT_EQ(store_->Get("exports", "x")->value, "2");
  EXPECT_THAT(Names("images"), ElementsAre("x"));
}

TEST_P(MetadataStoreTest, ExpectationsDecideAndFailuresChangeNothing) {
  const uint64_t first = Commit({Insert("images", "a", "1")});
  EXPECT_EQ(CommitCode({Insert("images", "a", "2")}), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(CommitCode({Replace("images", "a", "2", first + 7)}), absl::StatusCode::kAborted);
  EXPECT_EQ(CommitCode({Replace("images", "b", "2", first)}), absl::StatusCode::kNotFound);
  EXPECT_EQ(CommitCode({Remove("images", "b")}), absl::StatusCode::kNotFound);
  EXPECT_EQ(CommitCode({Remove("images", "a", 0)}), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(CommitCode({Remove("images", "b", 0)}), absl::StatusCode::kNotFound);
  EXPECT_EQ(CommitCode({Remove("images", "a", first + 7)}), absl::StatusCode::kAborted);
  EXPECT_EQ(*store_->Revision(), first);
  EXPECT_EQ(store_->Get("images", "a")->value, "1");
  const uint64_t second = Commit({Replace("images", "a", "2", first)});
  EXPECT_GT(second, first);
  EXPECT_EQ(CommitCode({Replace("images", "a", "3", first)}), absl::StatusCode::kAborted);
  Commit({Remove("images", "a", second)});
  EXPECT_THAT(Names("images"), IsEmpty());
}

TEST_P(MetadataStoreTest, ATransactionIsDoneWholeOrNotAtAll) {
  Commit({Insert("images", "a", "1")});
  const uint64_t before = *store_->Revision();
  EXPECT_EQ(CommitCode({Put("images", "b", "1"), Remove("images", "a"), Put("images", "a", "2"),
                        Insert("images", "a", "3")}),
            absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(Names("images"), ElementsAre("a"));
  EXPECT_EQ(store_->Get("images", "a")->value, "1");
  EXPECT_EQ(*store_->Revision(), before);
  EXPECT_THAT(store_->Changes(before, 10).value(), IsEmpty());
}

TEST_P(MetadataStoreTest, StepsOfATransactionSeeEarlierOnes) {
  Commit({Insert("images", "a", "1"), Remove("images", "a"), Insert("images", "a", "2")});
  EXPECT_EQ(store_->Get("images", "a")->value, "2");
  EXPECT_EQ(store_->Get("images", "a")->revision, *store_->Revision());
}

TEST_P(MetadataStoreTest, ListsGoInOrderOfBytesFromAKey) {
  Commit({Put("images", "b", "2"), Put("images", "a-1", "1"), Put("images", "a", "0"),
          Put("images", "\xC3\xBC", "4"), Put("images", "b0", "3"), Put("jmages", "a", "no")});
  auto page = store_->List("images", "", 2);
  ASSERT_EQ(page->rows.size(), 2u);
  EXPECT_EQ(page->rows[0].name, "a");
  EXPECT_EQ(page->rows[1].name, "a-1");
  EXPECT_TRUE(page->more);
  EXPECT_EQ(page->revision, *store_->Revision());
  page = store_->List("images", "a-1", 3);
  ASSERT_EQ(page->rows.size(), 3u);
  EXPECT_EQ(page->rows[0].value, "2");
  EXPECT_EQ(page->rows[2].name, "\xC3\xBC");
  EXPECT_FALSE(page->more);
  // The key need not exist any more.
  Commit({Remove("images", "a-1")});
  EXPECT_EQ(store_->List("images", "a-1", 1)->rows[0].name, "b");
}

TEST_P(MetadataStoreTest, TheLogTellsEveryStepInOrder) {
  Commit({Put("images", "a", "1"), Put("exports", "e", "1")});
  Commit({Remove("images", "a")});
  EXPECT_THAT(*store_->Changes(0, 10),
              ElementsAre(Change{1, Mutation::Kind::kPut, "images", "a"},
                          Change{2, Mutation::Kind::kPut, "exports", "e"},
                          Change{3, Mutation::Kind::kDelete, "images", "a"}));
  EXPECT_THAT(*store_->Changes(1, 1), ElementsAre(Change{2, Mutation::Kind::kPut, "exports", "e"}));
  EXPECT_THAT(*store_->Changes(3, 10), IsEmpty());
  EXPECT_EQ(store_->Changes(4, 10).status().code(), absl::StatusCode::kOutOfRange);
}

TEST_P(MetadataStoreTest, TrimmedChangesAreGoneAndTheirRevisionsNeverComeBack) {
  for (int i = 0; i < 5; ++i) Commit({Put("images", "a", std::to_string(i))});
  ASSERT_TRUE(store_->TrimChanges(3).ok());
  EXPECT_EQ(store_->Changes(2, 10).status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(store_->Changes(3, 10)->size(), 2u);
  ASSERT_TRUE(store_->TrimChanges(1).ok());  // further back than before: nothing happens
  EXPECT_EQ(store_->Changes(3, 10)->size(), 2u);
  ASSERT_TRUE(store_->TrimChanges(1000).ok());
  EXPECT_EQ(*store_->Revision(), 5u);
  EXPECT_THAT(*store_->Changes(5, 10), IsEmpty());
  EXPECT_EQ(Commit({Put("images", "a", "x")}), 6u);
  EXPECT_EQ(store_->Changes(5, 10)->size(), 1u);
}

TEST_P(MetadataStoreTest, ATouchIsLoggedAndLeavesTheRowAlone) {
  const uint64_t written = Commit({Insert("images", "a", "1")});
  const uint64_t touched = Commit({Touch("images", "a"), Touch("images", "none")});
  EXPECT_EQ(touched, written + 2);
  EXPECT_EQ(*store_->Revision(), touched);
  EXPECT_EQ(*store_->Get("images", "a"), (Row{"a", "1", written}));
  EXPECT_THAT(Names("images"), ElementsAre("a"));
  EXPECT_THAT(*store_->Changes(written, 10),
              ElementsAre(Change{touched - 1, Mutation::Kind::kTouch, "images", "a"},
                          Change{touched, Mutation::Kind::kTouch, "images", "none"}));
  EXPECT_EQ(CommitCode({Touch("images", "a"), Insert("images", "a", "2")}),
            absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(*store_->Revision(), touched);
}

TEST_P(MetadataStoreTest, BookkeepingHasRevisionsButIsNotLogged) {
  const uint64_t first = Commit({Insert("requests", "r", "1")});
  const uint64_t mixed =
      Commit({Put("intents", "a", "x"), Insert("images", "a", "1"), Put("jobs", "j", "x")});
  EXPECT_EQ(first, 1u);
  EXPECT_EQ(mixed, 4u);
  EXPECT_EQ(*store_->Revision(), mixed);
  EXPECT_EQ(store_->List("images", "", 1)->revision, mixed);
  EXPECT_EQ(store_->Get("jobs", "j")->revision, mixed);
  EXPECT_THAT(*store_->Changes(0, 10), ElementsAre(Change{3, Mutation::Kind::kPut, "images", "a"}));
  EXPECT_EQ(CommitCode({Replace("requests", "r", "2", first + 7)}), absl::StatusCode::kAborted);
  EXPECT_EQ(Commit({Replace("requests", "r", "2", first)}), 5u);
  EXPECT_EQ(Commit({Remove("requests", "r", 5)}), 6u);
  // There are no changes there, but nothing is missing either.
  EXPECT_THAT(*store_->Changes(6, 10), IsEmpty());
  EXPECT_EQ(store_->Changes(7, 10).status().code(), absl::StatusCode::kOutOfRange);
  // A trim takes only what is logged: whoever has seen change 3 has missed nothing.
  ASSERT_TRUE(store_->TrimChanges(5).ok());
  EXPECT_THAT(*store_->Changes(3, 10), IsEmpty());
  EXPECT_EQ(store_->Changes(2, 10).status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(Commit({Touch("images", "a")}), 7u);
  EXPECT_EQ(store_->Changes(3, 10)->size(), 1u);
}

TEST_P(MetadataStoreTest, OnlyTheDaemonsOwnCollectionsAreNotLogged) {
  for (const char* own : {"requests", "expiries", "jobs", "intents", "settings"}) {
    EXPECT_FALSE(IsLogged(own)) << own;
  }
  for (const char* logged : {"images", "exports", "pools", "job", "jobss", ""}) {
    EXPECT_TRUE(IsLogged(logged)) << logged;
  }
}

TEST_P(MetadataStoreTest, ManyRowsAreReadInTheOrderAsked) {
  const uint64_t first = Commit({Insert("images", "a", "1"), Insert("exports", "a", "2")});
  const uint64_t last = Commit({Put("images", "b", "3"), Put("jobs", "j", "4")});
  const std::vector<RowKey> keys = {
      {"images", "b"}, {"exports", "a"}, {"exports", "b"}, {"images", "a"}, {"images", "b"}};
  const auto found = store_->GetMany(keys);
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->revision, last);
  EXPECT_THAT(found->rows, ElementsAre(Row{"b", "3", last - 1}, Row{"a", "2", first}, std::nullopt,
                                       Row{"a", "1", first - 1}, Row{"b", "3", last - 1}));
  EXPECT_EQ(store_->GetMany({})->revision, last);
  EXPECT_THAT(store_->GetMany({})->rows, IsEmpty());
}

TEST_P(MetadataStoreTest, ManyRowsAreOfOneState) {
  Commit({Put("images", "a", "0"), Put("exports", "b", "0")});
  std::atomic<bool> done = false;
  std::thread writer([&] {
    for (int i = 1; i <= 200; ++i) {
      const std::string value = std::to_string(i);
      EXPECT_TRUE(store_->Commit({Put("images", "a", value), Put("exports", "b", value)}).ok());
    }
    done = true;
  });
  const std::vector<RowKey> keys = {{"images", "a"}, {"exports", "b"}};
  while (!done) {
    const auto found = store_->GetMany(keys);
    EXPECT_TRUE(found.ok()) << found.status();
    if (!found.ok()) break;
    EXPECT_EQ(found->rows[0]->value, found->rows[1]->value);
    EXPECT_EQ(found->rows[1]->revision, found->revision);
  }
  writer.join();
}

TEST_P(MetadataStoreTest, AListCanBeOfOnePrefix) {
  Commit({Put("connections", "exports/e/connections/1", ""),
          Put("connections", "exports/e/connections/2", ""),
          Put("connections", "exports/e/connections/3", ""),
          Put("connections", "exports/e0/connections/1", ""),
          Put("connections", "exports/d/connections/9", ""), Put("connections", "exports/e", "")});
  const auto names = [&](std::string_view after, size_t limit, std::string_view prefix) {
    const auto page = store_->List("connections", after, limit, prefix);
    EXPECT_TRUE(page.ok()) << page.status();
    std::vector<std::string> found;
    for (const Row& row : page->rows) found.push_back(row.name.substr(8));
    if (page->more) found.emplace_back("more");
    return found;
  };
  const std::string_view prefix = "exports/e/connections/";
  EXPECT_THAT(names("", 10, prefix),
              ElementsAre("e/connections/1", "e/connections/2", "e/connections/3"));
  EXPECT_THAT(names("", 3, prefix),
              ElementsAre("e/connections/1", "e/connections/2", "e/connections/3"));
  EXPECT_THAT(names("", 2, prefix), ElementsAre("e/connections/1", "e/connections/2", "more"));
  EXPECT_THAT(names("exports/e/connections/2", 2, prefix), ElementsAre("e/connections/3"));
  EXPECT_THAT(names("exports/e/connections/3", 2, prefix), IsEmpty());
  EXPECT_THAT(names("exports/f", 2, prefix), IsEmpty());
  EXPECT_THAT(names("exports/a", 1, prefix), ElementsAre("e/connections/1", "more"));
  EXPECT_THAT(names("", 10, "exports/e/connections/2"), ElementsAre("e/connections/2"));
  EXPECT_THAT(names("exports/e/connections/2", 10, "exports/e/connections/2"), IsEmpty());
  EXPECT_THAT(names("", 10, "exports/x"), IsEmpty());
  EXPECT_THAT(names("exports/e/connections/3", 10, ""), ElementsAre("e0/connections/1"));
}

TEST_P(MetadataStoreTest, TheOldestRevisionIsWhereTheLogStarts) {
  EXPECT_EQ(*store_->OldestRevision(), 0u);
  Commit({Touch("images", "a"), Touch("images", "a"), Put("jobs", "j", ""), Touch("images", "a")});
  EXPECT_EQ(*store_->OldestRevision(), 0u);
  const std::pair<uint64_t, uint64_t> cases[] = {{1, 1}, {3, 2}, {2, 2}, {UINT64_MAX, 4}, {0, 4}};
  for (const auto& [through, oldest] : cases) {
    ASSERT_TRUE(store_->TrimChanges(through).ok());
    EXPECT_EQ(*store_->OldestRevision(), oldest) << through;
    EXPECT_EQ(store_->Changes(oldest, 10)->size(), oldest == 1 ? 2u : oldest == 2 ? 1u : 0u);
    EXPECT_EQ(store_->Changes(oldest - 1, 10).status().code(), absl::StatusCode::kOutOfRange);
  }
}

TEST_P(MetadataStoreTest, TheListenerIsToldOfWhatIsLoggedBeforeTheCommitReturns) {
  std::vector<uint64_t> told;
  store_->SetListener([&](uint64_t revision) {
    EXPECT_EQ(*store_->Revision(), revision);
    EXPECT_EQ(store_->Changes(revision - 1, 10)->size(), 1u);
    told.push_back(revision);
  });
  Commit({Put("images", "a", "1"), Put("images", "b", "1")});
  EXPECT_THAT(told, ElementsAre(2));
  Commit({Put("jobs", "j", "1")});
  EXPECT_EQ(CommitCode({Insert("images", "a", "1")}), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(told, ElementsAre(2));
  Commit({Put("jobs", "j", "2"), Touch("images", "a")});
  EXPECT_THAT(told, ElementsAre(2, 5));
}

TEST_P(MetadataStoreTest, ItAnswersPings) { EXPECT_TRUE(store_->Ping().ok()); }

TEST_P(MetadataStoreTest, WhatACallerMustNotAskForIsABug) {
  EXPECT_DEATH(store_->Commit({}).IgnoreError(), "empty");
  EXPECT_DEATH(store_->Commit({Touch("jobs", "j")}).IgnoreError(), "IsLogged");
  Mutation touch = Touch("images", "a");
  touch.expected_revision = 1;
  EXPECT_DEATH(store_->Commit({touch}).IgnoreError(), "expected_revision");
}

TEST_P(MetadataStoreTest, ConcurrentCompareAndSetLosesNoUpdate) {
  Commit({Insert("images", "counter", "0")});
  constexpr int kThreads = 4, kEach = 25;
  std::atomic<int> failures = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      for (int done = 0; done < kEach;) {
        const auto row = store_->Get("images", "counter");
        const std::string next = std::to_string(std::stoi(row->value) + 1);
        const auto status =
            store_->Commit({Replace("images", "counter", next, row->revision)}).status();
        if (status.ok()) ++done;
        if (!status.ok() && status.code() != absl::StatusCode::kAborted) {
          ++failures;
          return;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(failures, 0);
  EXPECT_EQ(store_->Get("images", "counter")->value, std::to_string(kThreads * kEach));
}

// Many threads want the same rows: one gets each, and all are told so.
TEST_P(MetadataStoreTest, ConcurrentInsertsHaveOneWinnerEach) {
  constexpr int kThreads = 8, kRounds = 25;
  std::barrier together(kThreads);
  std::vector<std::vector<absl::StatusOr<uint64_t>>> answers(kThreads);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kRounds; ++i) {
        together.arrive_and_wait();
        // The first step must not stay if the second fails.
        answers[t].push_back(
            store_->Commit({Put("exports", "last", std::to_string(i)),
                            Insert("images", std::to_string(i), std::to_string(t))}));
        const auto row = store_->Get("images", std::to_string(i));
        EXPECT_TRUE(row.ok()) << row.status();  // whoever won, it is durable and visible by now
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int i = 0; i < kRounds; ++i) {
    const auto row = store_->Get("images", std::to_string(i));
    ASSERT_TRUE(row.ok()) << row.status();
    for (int t = 0; t < kThreads; ++t) {
      const absl::StatusOr<uint64_t>& answer = answers[t][i];
      if (row->value == std::to_string(t)) {
        ASSERT_TRUE(answer.ok()) << answer.status();
        EXPECT_EQ(*answer, row->revision);
      } else {
        EXPECT_EQ(answer.status().code(), absl::StatusCode::kAlreadyExists) << answer.status();
      }
    }
  }
  EXPECT_EQ(*store_->Revision(), uint64_t{2 * kRounds});  // failures have taken no revisions
  EXPECT_EQ(store_->Changes(0, 1000)->size(), size_t{2 * kRounds});
}

TEST_P(MetadataStoreTest, TheListenerHearsGrowingRevisionsThatAreVisible) {
  constexpr int kThreads = 8, kEach = 25;
  std::atomic<uint64_t> told = 0;
  std::atomic<int> calls = 0, inside = 0;
  store_->SetListener([&](uint64_t revision) {
    EXPECT_EQ(++inside, 1);
    EXPECT_GT(revision, told.load());
    const auto changes = store_->Changes(revision - 1, 1);
    EXPECT_TRUE(changes.ok()) << changes.status();
    EXPECT_TRUE(changes.ok() && changes->size() == 1u);
    told = revision;
    ++calls;
    --inside;
  });
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) {
        const std::string name = std::to_string(t * kEach + i);
        const auto revision = store_->Commit({Put("images", name, name), Touch("exports", "e")});
        EXPECT_TRUE(revision.ok()) << revision.status();
        EXPECT_GE(told, *revision);
        EXPECT_EQ(store_->Get("images", name)->revision, *revision - 1);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(told, *store_->Revision());
  EXPECT_EQ(told, uint64_t{2 * kThreads * kEach});
  EXPECT_LE(calls, kThreads * kEach);
}

// The same random steps do the same to the store as to a plain map.
TEST_P(MetadataStoreTest, RandomStepsAgreeWithAModel) {
  const char* given = std::getenv("GABION_SEED");
  const uint64_t seed =
      given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device()();
  SCOPED_TRACE("GABION_SEED=" + std::to_string(seed));
  std::mt19937_64 random(seed);
  std::map<std::string, Row> model;
  for (int i = 0; i < 300; ++i) {
    const std::string name(1, static_cast<char>('a' + random() % 5));
    const bool exists = model.contains(name);
    const bool remove = random() % 3 == 0;
    std::optional<uint64_t> expected;
    if (random() % 2 == 0) expected = random() % 2 == 0 && exists ? model[name].revision : 0;
    Mutation step =
        remove ? Remove("images", name, expected) : Put("images", name, std::to_string(i));
    step.expected_revision = expected;
    const bool fails = (remove && !exists) || (expected == uint64_t{0} && exists);
    const auto result = store_->Commit({step});
    ASSERT_EQ(result.ok(), !fails) << i << " " << result.status();
    if (fails) continue;
    if (remove) {
      model.erase(name);
    } else {
      model[name] = Row{name, step.value, *result};
    }
    std::vector<Row> rows;
    for (const auto& [key, row] : model) rows.push_back(row);
    ASSERT_EQ(store_->List("images", "", 100)->rows, rows) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, MetadataStoreTest,
                         testing::Values(Backend::kMemory, Backend::kSqlite),
                         [](const auto& backend) {
                           return backend.param == Backend::kMemory ? "Memory" : "Sqlite";
                         });

}  // namespace
}  // namespace gabion::service
