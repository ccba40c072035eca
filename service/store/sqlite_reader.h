// The reads of the SQLite store, over one connection. Used by sqlite_store only.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "service/store/metadata_store.h"
#include "service/store/sqlite.h"

namespace gabion::service {

// A read-only connection: what is read is a state that some commit has left, and the newest one
// when the read began, whatever is being written meanwhile. Methods are those of MetadataStore.
// Owned by the store; one thread at a time.
class SqliteReader {
 public:
  // REQUIRES: the file has the current schema and is open for writing in this process.
  static absl::StatusOr<std::unique_ptr<SqliteReader>> Open(const std::string& path);

  absl::StatusOr<Row> Get(std::string_view collection, std::string_view name);
  absl::StatusOr<RowsAt> GetMany(std::span<const RowKey> keys);
  absl::StatusOr<Page> List(std::string_view collection, std::string_view after, size_t limit,
                            std::string_view prefix);
  absl::StatusOr<std::vector<Change>> Changes(uint64_t after, size_t limit);
  absl::StatusOr<uint64_t> Revision() { return revision_.QueryNumber(); }
  absl::StatusOr<uint64_t> OldestRevision() { return trimmed_.QueryNumber(); }

 private:
  explicit SqliteReader(Database database) : database_(std::move(database)) {}
  absl::Status Prepare();
  absl::StatusOr<std::optional<Row>> Find(std::string_view collection, std::string_view name);
  // What `read` returns; all of its statements see one state.
  template <typename Read>
  auto FromOneState(Read read) -> decltype(read());

  Database database_;
  Statement get_, list_, changes_, begin_, end_, revision_, trimmed_;
};

}  // namespace gabion::service
