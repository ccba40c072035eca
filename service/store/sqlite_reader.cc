#include "service/store/sqlite_reader.h"

#include <algorithm>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "engine/base/status_macros.h"
#include "service/store/expectation.h"

namespace gabion::service {

absl::StatusOr<std::unique_ptr<SqliteReader>> SqliteReader::Open(const std::string& path) {
  ASSIGN_OR_RETURN(Database database, Database::OpenReadOnly(path));
  std::unique_ptr<SqliteReader> reader(new SqliteReader(std::move(database)));
  RETURN_IF_ERROR(reader->Prepare());
  return reader;
}

absl::Status SqliteReader::Prepare() {
  return database_.PrepareAll({
      {&get_, "SELECT value, revision FROM resources WHERE collection = ?1 AND name = ?2"},
      {&list_,
       "SELECT name, value, revision FROM resources WHERE collection = ?1 AND name >= ?2 "
       "ORDER BY name"},
      {&changes_,
       "SELECT revision, kind, collection, name FROM changes WHERE revision > ?1 "
       "ORDER BY revision LIMIT ?2"},
      {&begin_, "BEGIN"},
      {&end_, "COMMIT"},
      {&revision_, "SELECT value FROM settings WHERE key = 'revision'"},
      {&trimmed_, "SELECT value FROM settings WHERE key = 'trimmed_through'"},
  });
}

template <typename Read>
auto SqliteReader::FromOneState(Read read) -> decltype(read()) {
  RETURN_IF_ERROR(begin_.Run());
  // Nothing was written, so there is nothing that could fail to be kept.
  const absl::Cleanup end = [this] { end_.Run().IgnoreError(); };
  return read();
}

absl::StatusOr<std::optional<Row>> SqliteReader::Find(std::string_view collection,
                                                      std::string_view name) {
  const Resetting reset(get_);
  get_.Bind(1, collection).Bind(2, name);
  ASSIGN_OR_RETURN(const bool found, get_.Step());
  if (!found) return std::optional<Row>();
  return std::optional<Row>(Row{std::string(name), get_.Text(0), get_.Number(1)});
}

absl::StatusOr<Row> SqliteReader::Get(std::string_view collection, std::string_view name) {
  ASSIGN_OR_RETURN(std::optional<Row> row, Find(collection, name));
  if (!row.has_value()) return NoSuchRow(name);
  return *std::move(row);
}

absl::StatusOr<RowsAt> SqliteReader::GetMany(std::span<const RowKey> keys) {
  return FromOneState([&]() -> absl::StatusOr<RowsAt> {
    RowsAt found;
    ASSIGN_OR_RETURN(found.revision, Revision());
    for (const RowKey& key : keys) {
      ASSIGN_OR_RETURN(std::optional<Row> row, Find(key.collection, key.name));
      found.rows.push_back(std::move(row));
    }
    return found;
  });
}

absl::StatusOr<Page> SqliteReader::List(std::string_view collection, std::string_view after,
                                        size_t limit, std::string_view prefix) {
  return FromOneState([&]() -> absl::StatusOr<Page> {
    Page page;
    ASSIGN_OR_RETURN(page.revision, Revision());
    const Resetting reset(list_);
    list_.Bind(1, collection).Bind(2, std::max(after, prefix));
    for (;;) {
      ASSIGN_OR_RETURN(const bool row, list_.Step());
      if (!row) return page;
      std::string name = list_.Text(0);
      if (name <= after) continue;  // it is where the caller has been
      if (!name.starts_with(prefix)) return page;
      if (page.rows.size() == limit) {
        page.more = true;
        return page;
      }
      page.rows.push_back({std::move(name), list_.Text(1), list_.Number(2)});
    }
  });
}

absl::StatusOr<std::vector<Change>> SqliteReader::Changes(uint64_t after, size_t limit) {
  return FromOneState([&]() -> absl::StatusOr<std::vector<Change>> {
    ASSIGN_OR_RETURN(const uint64_t trimmed, OldestRevision());
    ASSIGN_OR_RETURN(const uint64_t revision, Revision());
    RETURN_IF_ERROR(CheckLogPosition(after, trimmed, revision));
    const Resetting reset(changes_);
    changes_.Bind(1, after).Bind(2, uint64_t{limit});
    std::vector<Change> found;
    for (;;) {
      ASSIGN_OR_RETURN(const bool row, changes_.Step());
      if (!row) return found;
      found.push_back({changes_.Number(0), static_cast<Mutation::Kind>(changes_.Number(1)),
                       changes_.Text(2), changes_.Text(3)});
    }
  });
}

}  // namespace gabion::service
