#include "service/store/sqlite_store.h"

#include <algorithm>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/status_macros.h"
#include "engine/base/text.h"
#include "service/store/expectation.h"
#include "service/store/process_lock.h"
#include "service/store/schema.h"
#include "service/store/sqlite.h"

namespace gabion::service {
namespace {

// The statements that the store runs all the time.
struct Statements {
  Statement get, list, put, remove, log, changes, begin, commit, rollback, revision, trimmed, trim,
      set_trimmed;

  absl::Status Prepare(Database& database) {
    const std::pair<Statement*, const char*> all[] = {
        {&get, "SELECT value, revision FROM resources WHERE collection = ?1 AND name = ?2"},
        {&list,
         "SELECT name, value, revision FROM resources WHERE collection = ?1 AND name > ?2 "
         "ORDER BY name LIMIT ?3"},
        {&put,
         "INSERT INTO resources (collection, name, revision, value) VALUES (?1, ?2, ?3, ?4) "
         "ON CONFLICT DO UPDATE SET revision = excluded.revision, value = excluded.value"},
        {&remove, "DELETE FROM resources WHERE collection = ?1 AND name = ?2"},
        {&log,
         "INSERT INTO changes (kind, collection, name) VALUES (?1, ?2, ?3) "
         "RETURNING revision"},
        {&changes,
         "SELECT revision, kind, collection, name FROM changes WHERE revision > ?1 "
         "ORDER BY revision LIMIT ?2"},
        {&begin, "BEGIN IMMEDIATE"},
        {&commit, "COMMIT"},
        {&rollback, "ROLLBACK"},
        // AUTOINCREMENT keeps the highest revision ever given out here.
        {&revision, "SELECT seq FROM sqlite_sequence WHERE name = 'changes'"},
        {&trimmed, "SELECT value FROM settings WHERE key = 'trimmed_through'"},
        {&trim, "DELETE FROM changes WHERE revision <= ?1"},
        {&set_trimmed, "UPDATE settings SET value = ?1 WHERE key = 'trimmed_through'"},
    };
    for (const auto& [statement, sql] : all) {
      ASSIGN_OR_RETURN(*statement, database.Prepare(sql));
    }
    return absl::OkStatus();
  }
};

class SqliteStore final : public MetadataStore {
 public:
  SqliteStore(ProcessLock lock, Database database)
      : lock_(std::move(lock)), database_(std::move(database)) {}

  absl::Status Prepare() { return statements_.Prepare(database_); }

  absl::StatusOr<Row> Get(std::string_view collection, std::string_view name) override {
    const std::lock_guard lock(mutex_);
    const Resetting reset(statements_.get);
    statements_.get.Bind(1, collection).Bind(2, name);
    ASSIGN_OR_RETURN(const bool found, statements_.get.Step());
    if (!found) return NoSuchRow(name);
    return Row{std::string(name), statements_.get.Text(0), statements_.get.Number(1)};
  }

  absl::StatusOr<Page> List(std::string_view collection, std::string_view after,
                            size_t limit) override {
    CHECK_GT(limit, 0u);
    const std::lock_guard lock(mutex_);
    Page page;
    ASSIGN_OR_RETURN(page.revision, One(statements_.revision));
    const Resetting reset(statements_.list);
    statements_.list.Bind(1, collection).Bind(2, after).Bind(3, uint64_t{limit} + 1);
    for (;;) {
      ASSIGN_OR_RETURN(const bool row, statements_.list.Step());
      if (!row) return page;
      if (page.rows.size() == limit) {
        page.more = true;
        return page;
      }
      page.rows.push_back(
          {statements_.list.Text(0), statements_.list.Text(1), statements_.list.Number(2)});
    }
  }

  absl::StatusOr<uint64_t> Commit(const std::vector<Mutation>& steps) override {
    CHECK(!steps.empty());
    uint64_t last = 0;
    RETURN_IF_ERROR(Transaction([&]() -> absl::Status {
      for (const Mutation& step : steps) {
        ASSIGN_OR_RETURN(last, Apply(step));
      }
      return absl::OkStatus();
    }));
    return last;
  }

  absl::StatusOr<std::vector<Change>> Changes(uint64_t after, size_t limit) override {
    const std::lock_guard lock(mutex_);
    ASSIGN_OR_RETURN(const uint64_t trimmed, One(statements_.trimmed));
    ASSIGN_OR_RETURN(const uint64_t revision, One(statements_.revision));
    RETURN_IF_ERROR(CheckLogPosition(after, trimmed, revision));
    Statement& changes = statements_.changes;
    const Resetting reset(changes);
    changes.Bind(1, after).Bind(2, uint64_t{limit});
    std::vector<Change> found;
    for (;;) {
      ASSIGN_OR_RETURN(const bool row, changes.Step());
      if (!row) return found;
      found.push_back({changes.Number(0), static_cast<Mutation::Kind>(changes.Number(1)),
                       changes.Text(2), changes.Text(3)});
    }
  }

  absl::Status TrimChanges(uint64_t through) override {
    return Transaction([&]() -> absl::Status {
      ASSIGN_OR_RETURN(const uint64_t revision, One(statements_.revision));
      ASSIGN_OR_RETURN(const uint64_t trimmed, One(statements_.trimmed));
      const uint64_t target = std::clamp(through, trimmed, revision);
      RETURN_IF_ERROR(statements_.trim.Bind(1, target).Run());
      return statements_.set_trimmed.Bind(1, target).Run();
    });
  }

  absl::StatusOr<uint64_t> Revision() override {
    const std::lock_guard lock(mutex_);
    return One(statements_.revision);
  }

 private:
  // The number that `statement` yields; 0 if it yields none.
  static absl::StatusOr<uint64_t> One(Statement& statement) {
    const Resetting reset(statement);
    ASSIGN_OR_RETURN(const bool row, statement.Step());
    return row ? statement.Number(0) : 0;
  }

  template <typename Body>
  absl::Status Transaction(Body body) {
    const std::lock_guard lock(mutex_);
    RETURN_IF_ERROR(statements_.begin.Run());
    absl::Status status = body();
    if (status.ok()) status = statements_.commit.Run();
    // Some failures have rolled back by themselves: then there is nothing left to do here.
    if (!status.ok()) statements_.rollback.Run().IgnoreError();
    return status;
  }

  absl::StatusOr<std::optional<uint64_t>> RevisionOf(const Mutation& step) {
    const Resetting reset(statements_.get);
    statements_.get.Bind(1, step.collection).Bind(2, step.name);
    ASSIGN_OR_RETURN(const bool found, statements_.get.Step());
    return found ? std::optional(statements_.get.Number(1)) : std::nullopt;
  }

  // Does one step inside of a transaction; returns its revision.
  absl::StatusOr<uint64_t> Apply(const Mutation& step) {
    ASSIGN_OR_RETURN(const std::optional<uint64_t> existing, RevisionOf(step));
    RETURN_IF_ERROR(CheckExpectation(step, existing));
    statements_.log.Bind(1, static_cast<uint64_t>(step.kind))
        .Bind(2, step.collection)
        .Bind(3, step.name);
    ASSIGN_OR_RETURN(const uint64_t revision, One(statements_.log));
    if (step.kind == Mutation::Kind::kDelete) {
      RETURN_IF_ERROR(statements_.remove.Bind(1, step.collection).Bind(2, step.name).Run());
    } else {
      statements_.put.Bind(1, step.collection).Bind(2, step.name).Bind(3, revision);
      RETURN_IF_ERROR(statements_.put.BindBlob(4, step.value).Run());
    }
    return revision;
  }

  const ProcessLock lock_;  // outlives the database
  std::mutex mutex_;        // guards everything below
  Database database_;
  Statements statements_;
};

absl::Status SetUp(Database& database) {
  RETURN_IF_ERROR(CheckSchema(database));
  ASSIGN_OR_RETURN(const std::string mode, database.QueryText("PRAGMA journal_mode = WAL"));
  if (mode != "wal") {
    return absl::UnavailableError(
        absl::StrCat("its file system does not take a write-ahead log (journal mode ", mode, ")"));
  }
  RETURN_IF_ERROR(database.Execute("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON"));
  RETURN_IF_ERROR(MigrateSchema(database));
  ASSIGN_OR_RETURN(const std::string verdict, database.QueryText("PRAGMA integrity_check(1)"));
  if (verdict != "ok") return absl::DataLossError(absl::StrCat("it is damaged: ", verdict));
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<MetadataStore>> Open(const std::string& path) {
  ASSIGN_OR_RETURN(ProcessLock lock, ProcessLock::Take(path + ".lock"));
  ASSIGN_OR_RETURN(Database database, Database::Open(path));
  RETURN_IF_ERROR(SetUp(database));
  auto store = std::make_unique<SqliteStore>(std::move(lock), std::move(database));
  RETURN_IF_ERROR(store->Prepare());
  return store;
}

}  // namespace

absl::StatusOr<std::unique_ptr<MetadataStore>> OpenSqliteStore(const std::string& path) {
  absl::StatusOr<std::unique_ptr<MetadataStore>> store = Open(path);
  if (store.ok()) return store;
  return absl::Status(store.status().code(), absl::StrCat("cannot open the metadata store ", path,
                                                          ": ", store.status().message()));
}

}  // namespace gabion::service
