// The writes of the SQLite store, over one connection. Used by sqlite_store only.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "service/store/metadata_store.h"
#include "service/store/pending_commit.h"
#include "service/store/sqlite.h"

namespace gabion::service {

// Writes several commits in one transaction of SQLite, so that they share one wait for the disk.
// Each one is still done whole or not at all. Owned by the store; thread-safe, one write at a time.
//
// (1) An answer depends on the commits before it in the group: a row may exist because one of them
//     inserted it. So no answer counts, not even that a row is not as expected, until the
//     transaction is durable.
// (2) If it fails and the file as such is usable (one commit may be too large for what is left of
//     the disk, say), that is not the others' fault: then each commit is tried again in a
//     transaction of its own.
class SqliteWriter {
 public:
  // `database` has the current schema.
  static absl::StatusOr<std::unique_ptr<SqliteWriter>> Make(Database database);

  // Sets the answer of each commit. Returns the revision afterwards if something was logged.
  std::optional<uint64_t> Write(std::span<PendingCommit* const> group);

  // As MetadataStore::TrimChanges().
  absl::Status TrimChanges(uint64_t through);

 private:
  explicit SqliteWriter(Database database) : database_(std::move(database)) {}
  absl::Status Prepare();
  // Does `body` in a transaction, if it returns true; otherwise, or if it fails, nothing is done.
  template <typename Body>
  absl::Status Transaction(Body body);
  // Sets the answers; after an error they mean nothing.
  absl::Status WriteTogether(std::span<PendingCommit* const> group);
  // Does the steps from `revision`, which it moves on. What is returned is an error of SQLite;
  // whether the rows were as expected is in `unexpected`.
  absl::Status Apply(const std::vector<Mutation>& steps, uint64_t* revision,
                     absl::Status* unexpected);
  absl::Status WriteRow(const Mutation& step, uint64_t revision);
  absl::StatusOr<std::optional<uint64_t>> RevisionOf(const Mutation& step);

  std::mutex mutex_;  // guards everything below
  Database database_;
  Statement find_, put_, remove_, log_, begin_, commit_, rollback_, savepoint_, release_, undo_,
      revision_, set_revision_, trimmed_, set_trimmed_, last_logged_, trim_;
};

}  // namespace gabion::service
