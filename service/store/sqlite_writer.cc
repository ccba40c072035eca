#include "service/store/sqlite_writer.h"

#include <algorithm>
#include <utility>

#include "engine/base/status_macros.h"
#include "service/store/expectation.h"

namespace gabion::service {

absl::StatusOr<std::unique_ptr<SqliteWriter>> SqliteWriter::Make(Database database) {
  std::unique_ptr<SqliteWriter> writer(new SqliteWriter(std::move(database)));
  RETURN_IF_ERROR(writer->Prepare());
  return writer;
}

absl::Status SqliteWriter::Prepare() {
  return database_.PrepareAll({
      {&find_, "SELECT revision FROM resources WHERE collection = ?1 AND name = ?2"},
      {&put_,
       "INSERT INTO resources (collection, name, revision, value) VALUES (?1, ?2, ?3, ?4) "
       "ON CONFLICT DO UPDATE SET revision = excluded.revision, value = excluded.value"},
      {&remove_, "DELETE FROM resources WHERE collection = ?1 AND name = ?2"},
      {&log_, "INSERT INTO changes (revision, kind, collection, name) VALUES (?1, ?2, ?3, ?4)"},
      {&begin_, "BEGIN IMMEDIATE"},
      {&commit_, "COMMIT"},
      {&rollback_, "ROLLBACK"},
      {&savepoint_, "SAVEPOINT one"},
      {&release_, "RELEASE one"},
      {&undo_, "ROLLBACK TO one"},
      {&revision_, "SELECT value FROM settings WHERE key = 'revision'"},
      {&set_revision_, "UPDATE settings SET value = ?1 WHERE key = 'revision'"},
      {&trimmed_, "SELECT value FROM settings WHERE key = 'trimmed_through'"},
      {&set_trimmed_, "UPDATE settings SET value = ?1 WHERE key = 'trimmed_through'"},
      {&last_logged_, "SELECT max(revision) FROM changes WHERE revision <= ?1"},
      {&trim_, "DELETE FROM changes WHERE revision <= ?1"},
  });
}

std::optional<uint64_t> SqliteWriter::Write(std::span<PendingCommit* const> group) {
  const std::lock_guard lock(mutex_);
  const absl::Status together = WriteTogether(group);
  if (!together.ok()) {
    const bool for_all = group.size() == 1 || absl::IsUnavailable(together);
    for (PendingCommit* pending : group) {
      const absl::Status alone = for_all ? together : WriteTogether({&pending, 1});
      if (!alone.ok()) pending->answer = alone;
    }
  }
  std::optional<uint64_t> revision;
  for (const PendingCommit* pending : group) {
    if (pending->answer.ok() && AnyLogged(*pending->steps)) revision = *pending->answer;
  }
  return revision;
}

absl::Status SqliteWriter::TrimChanges(uint64_t through) {
  const std::lock_guard lock(mutex_);
  return Transaction([&]() -> absl::StatusOr<bool> {
    ASSIGN_OR_RETURN(const uint64_t revision, revision_.QueryNumber());
    ASSIGN_OR_RETURN(const uint64_t trimmed, trimmed_.QueryNumber());
    last_logged_.Bind(1, std::min(through, revision));
    ASSIGN_OR_RETURN(const uint64_t target, last_logged_.QueryNumber());
    if (target <= trimmed) return false;
    RETURN_IF_ERROR(trim_.Bind(1, target).Run());
    RETURN_IF_ERROR(set_trimmed_.Bind(1, target).Run());
    return true;
  });
}

template <typename Body>
absl::Status SqliteWriter::Transaction(Body body) {
  RETURN_IF_ERROR(begin_.Run());
  const absl::StatusOr<bool> done = body();
  absl::Status status = done.status();
  if (done.ok() && *done) {
    status = commit_.Run();
    if (status.ok()) return status;
  }
  // Some failures have rolled back by themselves: then there is nothing left to do here.
  rollback_.Run().IgnoreError();
  return status;
}

absl::Status SqliteWriter::WriteTogether(std::span<PendingCommit* const> group) {
  return Transaction([&]() -> absl::StatusOr<bool> {
    ASSIGN_OR_RETURN(const uint64_t first, revision_.QueryNumber());
    uint64_t revision = first;
    for (PendingCommit* pending : group) {
      const uint64_t before = revision;
      absl::Status unexpected;
      RETURN_IF_ERROR(savepoint_.Run());
      RETURN_IF_ERROR(Apply(*pending->steps, &revision, &unexpected));
      if (unexpected.ok()) {
        pending->answer = revision;
      } else {
        RETURN_IF_ERROR(undo_.Run());
        revision = before;
        pending->answer = unexpected;
      }
      RETURN_IF_ERROR(release_.Run());
    }
    if (revision == first) return false;
    RETURN_IF_ERROR(set_revision_.Bind(1, revision).Run());
    return true;
  });
}

absl::Status SqliteWriter::Apply(const std::vector<Mutation>& steps, uint64_t* revision,
                                 absl::Status* unexpected) {
  for (const Mutation& step : steps) {
    ++*revision;
    if (step.kind != Mutation::Kind::kTouch) {
      ASSIGN_OR_RETURN(const std::optional<uint64_t> existing, RevisionOf(step));
      *unexpected = CheckExpectation(step, existing);
      if (!unexpected->ok()) return absl::OkStatus();
      RETURN_IF_ERROR(WriteRow(step, *revision));
    }
    if (!IsLogged(step.collection)) continue;
    log_.Bind(1, *revision).Bind(2, static_cast<uint64_t>(step.kind));
    RETURN_IF_ERROR(log_.Bind(3, step.collection).Bind(4, step.name).Run());
  }
  return absl::OkStatus();
}

absl::Status SqliteWriter::WriteRow(const Mutation& step, uint64_t revision) {
  if (step.kind == Mutation::Kind::kDelete) {
    return remove_.Bind(1, step.collection).Bind(2, step.name).Run();
  }
  put_.Bind(1, step.collection).Bind(2, step.name).Bind(3, revision);
  return put_.BindBlob(4, step.value).Run();
}

absl::StatusOr<std::optional<uint64_t>> SqliteWriter::RevisionOf(const Mutation& step) {
  const Resetting reset(find_);
  find_.Bind(1, step.collection).Bind(2, step.name);
  ASSIGN_OR_RETURN(const bool found, find_.Step());
  return found ? std::optional(find_.Number(0)) : std::nullopt;
}

}  // namespace gabion::service
