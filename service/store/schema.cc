#include "service/store/schema.h"

#include <iterator>
#include <string>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"

namespace gabion::service {
namespace {

// PRAGMA application_id: "GABN".
constexpr uint64_t kApplicationId = 0x4741424E;

// Script n brings version n to n + 1. Scripts that were released never change; new ones follow.
constexpr const char* kMigrations[] = {
    // resources: what is. changes: what happened; AUTOINCREMENT, so that a revision is never used
    // twice, not even after a trim. settings: single numbers.
    R"(
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
    INSERT INTO settings (key, value) VALUES ('trimmed_through', 0);
    )",
    // The last revision gets a row of its own, because not every step is in changes any more: those
    // of the bookkeeping are not, and what there is of them goes.
    R"(
    INSERT INTO settings (key, value)
      SELECT 'revision', coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'changes';
    DELETE FROM changes
      WHERE collection IN ('requests', 'expiries', 'jobs', 'intents', 'settings');
    )",
};

}  // namespace

int CurrentSchemaVersion() { return static_cast<int>(std::size(kMigrations)); }

absl::Status CheckSchema(Database& database) {
  ASSIGN_OR_RETURN(const uint64_t application, database.QueryNumber("PRAGMA application_id"));
  ASSIGN_OR_RETURN(const uint64_t tables,
                   database.QueryNumber("SELECT count(*) FROM sqlite_schema"));
  if (application != kApplicationId && (application != 0 || tables != 0)) {
    return absl::FailedPreconditionError("it is a database of another program");
  }
  ASSIGN_OR_RETURN(const uint64_t version, database.QueryNumber("PRAGMA user_version"));
  if (version > std::size(kMigrations)) {
    return absl::FailedPreconditionError(absl::StrCat("it was written by a newer Gabion (schema ",
                                                      version, "); this one knows schemas up to ",
                                                      std::size(kMigrations)));
  }
  return absl::OkStatus();
}

absl::Status MigrateSchema(Database& database) {
  ASSIGN_OR_RETURN(const uint64_t version, database.QueryNumber("PRAGMA user_version"));
  for (uint64_t from = version; from < std::size(kMigrations); ++from) {
    RETURN_IF_ERROR(database.Execute(
        absl::StrCat("BEGIN IMMEDIATE;", kMigrations[from], "PRAGMA user_version = ", from + 1,
                     ";PRAGMA application_id = ", kApplicationId, ";COMMIT;")));
  }
  return absl::OkStatus();
}

}  // namespace gabion::service
