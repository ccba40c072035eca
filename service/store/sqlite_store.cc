#include "service/store/sqlite_store.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/status_macros.h"
#include "engine/base/text.h"
#include "service/store/commit_queue.h"
#include "service/store/expectation.h"
#include "service/store/process_lock.h"
#include "service/store/reader_pool.h"
#include "service/store/schema.h"
#include "service/store/sqlite.h"
#include "service/store/sqlite_writer.h"

namespace gabion::service {
namespace {

// So that as many calls can read at once. They are short, so more would not be faster.
constexpr size_t kReaders = 4;

class SqliteStore final : public MetadataStore {
 public:
  SqliteStore(ProcessLock lock, std::unique_ptr<SqliteWriter> writer,
              std::unique_ptr<ReaderPool> readers)
      : lock_(std::move(lock)), writer_(std::move(writer)), readers_(std::move(readers)) {}

  absl::StatusOr<Row> Get(std::string_view collection, std::string_view name) override {
    return readers_->Take()->Get(collection, name);
  }

  absl::StatusOr<RowsAt> GetMany(std::span<const RowKey> keys) override {
    return readers_->Take()->GetMany(keys);
  }

  absl::StatusOr<Page> List(std::string_view collection, std::string_view after, size_t limit,
                            std::string_view prefix) override {
    CHECK_GT(limit, 0u);
    return readers_->Take()->List(collection, after, limit, prefix);
  }

  absl::StatusOr<uint64_t> Commit(const std::vector<Mutation>& steps) override {
    CheckSteps(steps);
    return commits_.Commit(steps);
  }

  absl::StatusOr<std::vector<Change>> Changes(uint64_t after, size_t limit) override {
    return readers_->Take()->Changes(after, limit);
  }

  absl::Status TrimChanges(uint64_t through) override { return writer_->TrimChanges(through); }

  absl::StatusOr<uint64_t> Revision() override { return readers_->Take()->Revision(); }

  absl::StatusOr<uint64_t> OldestRevision() override { return readers_->Take()->OldestRevision(); }

  void SetListener(Listener listener) override { listener_ = std::move(listener); }

  absl::Status Ping() override { return Revision().status(); }

 private:
  void Write(std::span<PendingCommit* const> group) {
    const std::optional<uint64_t> logged = writer_->Write(group);
    if (logged.has_value() && listener_) listener_(*logged);
  }

  // From the bottom up. The writer closes last: it writes the log back into the file.
  const ProcessLock lock_;
  const std::unique_ptr<SqliteWriter> writer_;
  const std::unique_ptr<ReaderPool> readers_;
  Listener listener_;  // called by who leads the commits
  CommitQueue commits_{[this](std::span<PendingCommit* const> group) { Write(group); }};
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
  ASSIGN_OR_RETURN(std::unique_ptr<SqliteWriter> writer, SqliteWriter::Make(std::move(database)));
  ASSIGN_OR_RETURN(std::unique_ptr<ReaderPool> readers, ReaderPool::Open(path, kReaders));
  return std::make_unique<SqliteStore>(std::move(lock), std::move(writer), std::move(readers));
}

}  // namespace

absl::StatusOr<std::unique_ptr<MetadataStore>> OpenSqliteStore(const std::string& path) {
  absl::StatusOr<std::unique_ptr<MetadataStore>> store = Open(path);
  if (store.ok()) return store;
  return absl::Status(store.status().code(), absl::StrCat("cannot open the metadata store ", path,
                                                          ": ", store.status().message()));
}

}  // namespace gabion::service
