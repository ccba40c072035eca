// What the SQLite store does beyond the interface: durability, locks, damage, versions.
#include "service/store/sqlite_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <string>
#include <thread>

#include "engine/base/text.h"
#include "service/store/sqlite.h"
#include "tests/service/store/child.h"
#include "tests/service/temp_dir.h"

namespace gabion::service {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

void Tell(int to_parent) {
  if (write(to_parent, "x", 1) != 1) _exit(1);
}

TEST(SqliteStoreTest, RowsAndRevisionsSurviveAReopening) {
  const TempDir dir;
  uint64_t revision = 0;
  {
    auto store = OpenSqliteStore(dir / "db");
    ASSERT_TRUE(store.ok()) << store.status();
    revision = *(*store)->Commit({Insert("images", "images/a", "x")});
    ASSERT_TRUE((*store)->TrimChanges(revision).ok());
  }
  auto store = OpenSqliteStore(dir / "db");
  ASSERT_TRUE(store.ok()) << store.status();
  EXPECT_EQ((*store)->Get("images", "images/a")->value, "x");
  EXPECT_EQ(*(*store)->Revision(), revision);
  EXPECT_EQ(*(*store)->Commit({Put("images", "images/b", "y")}), revision + 1);
}

TEST(SqliteStoreTest, RevisionsOfBookkeepingSurviveAReopening) {
  const TempDir dir;
  for (uint64_t opened = 0; opened < 3; ++opened) {
    auto store = OpenSqliteStore(dir / "db");
    ASSERT_TRUE(store.ok()) << store.status();
    EXPECT_EQ(*(*store)->Revision(), 2 * opened);
    EXPECT_EQ(*(*store)->Commit({Put("jobs", "j", "x"), Put("jobs", "k", "y")}), 2 * opened + 2);
    EXPECT_THAT(*(*store)->Changes(2 * opened, 10), IsEmpty());
  }
}

// A store as the first released schema left it.
TEST(SqliteStoreTest, AnOlderSchemaIsMigrated) {
  const TempDir dir;
  ASSERT_TRUE(Database::Open(dir / "db")
                  ->Execute(R"(
    CREATE TABLE resources (
      collection TEXT NOT NULL,
      name TEXT NOT NULL,
      revision INTEGER NOT NULL,
      value BLOB NOT NULL,
      PRIMARY KEY (collection, name)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE changes (
      revision INTEGER PRIMARY KEY AUTOINCREMENT,
      kind INTEGER NOT NULL,
      collection TEXT NOT NULL,
      name TEXT NOT NULL
    ) STRICT;
    CREATE TABLE settings (
      key TEXT NOT NULL PRIMARY KEY,
      value INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    INSERT INTO settings (key, value) VALUES ('trimmed_through', 2);
    INSERT INTO resources VALUES ('images', 'images/a', 5, x'61');
    INSERT INTO changes VALUES
      (3, 0, 'settings', 'k'), (4, 0, 'intents', 'images/a'), (5, 0, 'images', 'images/a'),
      (6, 1, 'intents', 'images/a'), (9, 1, 'images', 'images/b');
    DELETE FROM changes WHERE revision = 9;
    PRAGMA user_version = 1;
    PRAGMA application_id = 0x4741424E)")
                  .ok());
  auto store = OpenSqliteStore(dir / "db");
  ASSERT_TRUE(store.ok()) << store.status();
  EXPECT_EQ(*(*store)->Get("images", "images/a"), (Row{"images/a", "a", 5}));
  EXPECT_EQ(*(*store)->Revision(), 9u);
  EXPECT_EQ(*(*store)->OldestRevision(), 2u);
  EXPECT_THAT(*(*store)->Changes(2, 10),
              ElementsAre(Change{5, Mutation::Kind::kPut, "images", "images/a"}));
  EXPECT_EQ(*(*store)->Commit({Touch("images", "images/a")}), 10u);
}

TEST(SqliteStoreTest, WhatWasCommittedSurvivesKill9) {
  const TempDir dir;
  const Child child = Child::Start([&](int to_parent) {
    auto store = OpenSqliteStore(dir / "db");
    if (!store.ok() || !(*store)->Commit({Insert("images", "images/a", "kept")}).ok()) _exit(1);
    Tell(to_parent);
    pause();
  });
  ASSERT_TRUE(child.Hear());
  child.Kill();
  auto store = OpenSqliteStore(dir / "db");
  ASSERT_TRUE(store.ok()) << store.status();
  EXPECT_EQ((*store)->Get("images", "images/a")->value, "kept");
}

TEST(SqliteStoreTest, Kill9InTheMiddleLeavesWholeTransactionsOnly) {
  const TempDir dir;
  const Child child = Child::Start([&](int to_parent) {
    auto store = OpenSqliteStore(dir / "db");
    if (!store.ok()) _exit(1);
    for (uint64_t i = 1;; ++i) {
      const std::string value = std::to_string(i);
      if (!(*store)->Commit({Put("images", "a", value), Put("exports", "b", value)}).ok()) _exit(1);
      Tell(to_parent);
    }
  });
  uint64_t acknowledged = 0;
  while (acknowledged < 200 && child.Hear()) ++acknowledged;
  child.Kill();
  auto store = OpenSqliteStore(dir / "db");
  ASSERT_TRUE(store.ok()) << store.status();
  const std::string a = (*store)->Get("images", "a")->value;
  EXPECT_EQ(a, (*store)->Get("exports", "b")->value);
  EXPECT_GE(std::stoull(a), acknowledged);
  EXPECT_EQ(*(*store)->Revision(), 2 * std::stoull(a));
}

TEST(SqliteStoreTest, ReadsDoNotWaitForACommit) {
  const TempDir dir;
  auto store = OpenSqliteStore(dir / "db");
  ASSERT_TRUE(store.ok()) << store.status();
  ASSERT_EQ(*(*store)->Commit({Put("images", "a", "old")}), 1u);
  auto holder = Database::Open(dir / "db");  // holds commits up
  ASSERT_TRUE(holder->Execute("BEGIN IMMEDIATE").ok());
  std::atomic<bool> committed = false;
  std::thread writer([&] {
    EXPECT_TRUE((*store)->Commit({Put("images", "a", "new")}).ok());
    committed = true;
  });
  EXPECT_EQ((*store)->Get("images", "a")->value, "old");
  EXPECT_EQ((*store)->List("images", "", 10)->rows.size(), 1u);
  EXPECT_EQ((*store)->Changes(0, 10)->size(), 1u);
  EXPECT_EQ(*(*store)->Revision(), 1u);
  EXPECT_TRUE((*store)->Ping().ok());
  EXPECT_FALSE(committed);
  ASSERT_TRUE(holder->Execute("ROLLBACK").ok());
  writer.join();
  EXPECT_EQ((*store)->Get("images", "a")->value, "new");
}

TEST(SqliteStoreTest, ASecondProcessIsRefusedWithASentenceUntilTheFirstEnds) {
  const TempDir dir;
  const Child child = Child::Start([&](int to_parent) {
    auto store = OpenSqliteStore(dir / "db");
    if (!store.ok()) _exit(1);
    Tell(to_parent);
    pause();
  });
  ASSERT_TRUE(child.Hear());
  const absl::Status refused = OpenSqliteStore(dir / "db").status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(AsStd(refused.message())),
              HasSubstr("in use by process " + std::to_string(child.pid)));
  child.Kill();
  EXPECT_TRUE(OpenSqliteStore(dir / "db").ok());
}

TEST(SqliteStoreTest, AFileThatIsNoDatabaseIsDataLoss) {
  const TempDir dir;
  std::ofstream(dir / "db") << std::string(8192, 'x');
  const absl::Status status = OpenSqliteStore(dir / "db").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
  EXPECT_THAT(std::string(AsStd(status.message())), HasSubstr(dir / "db"));
}

TEST(SqliteStoreTest, ADamagedPageIsFoundAtTheStart) {
  const TempDir dir;
  {
    auto store = OpenSqliteStore(dir / "db");
    ASSERT_TRUE(store.ok()) << store.status();
    for (int i = 0; i < 200; ++i) {
      ASSERT_TRUE((*store)->Commit({Put("images", std::to_string(i), std::string(500, 'v'))}).ok());
    }
  }  // closing writes the log back into the file
  std::fstream file(dir / "db", std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(0, std::ios::end);
  const auto size = static_cast<int64_t>(file.tellp());
  ASSERT_GT(size, 5 * 4096);
  file.seekp(4096);
  file << std::string(static_cast<size_t>(size - 4096), '\x5A');
  file.close();
  EXPECT_EQ(OpenSqliteStore(dir / "db").status().code(), absl::StatusCode::kDataLoss);
}

TEST(SqliteStoreTest, ANewerSchemaIsRefused) {
  const TempDir dir;
  ASSERT_TRUE(OpenSqliteStore(dir / "db").ok());
  ASSERT_TRUE(Database::Open(dir / "db")->Execute("PRAGMA user_version = 4711").ok());
  const absl::Status status = OpenSqliteStore(dir / "db").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(AsStd(status.message())), HasSubstr("newer Gabion (schema 4711)"));
}

TEST(SqliteStoreTest, AnotherProgramsDatabaseIsRefusedAndLeftAlone) {
  const TempDir dir;
  ASSERT_TRUE(Database::Open(dir / "db")->Execute("CREATE TABLE theirs (x)").ok());
  const absl::Status status = OpenSqliteStore(dir / "db").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(AsStd(status.message())), HasSubstr("another program"));
  EXPECT_EQ(*Database::Open(dir / "db")->QueryNumber("SELECT count(*) FROM sqlite_schema"), 1u);
  EXPECT_EQ(*Database::Open(dir / "db")->QueryText("PRAGMA journal_mode"), "delete");
}

TEST(SqliteStoreTest, ADirectoryThatIsNotThereIsAnErrorWithItsName) {
  const TempDir dir;
  const absl::Status status = OpenSqliteStore(dir / "none/db").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound) << status;
  EXPECT_THAT(std::string(AsStd(status.message())), HasSubstr(dir / "none/db"));
}

}  // namespace
}  // namespace gabion::service
