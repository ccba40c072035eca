#include "service/store/sqlite.h"

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/status_macros.h"
#include "engine/base/text.h"

namespace gabion::service {
namespace {

absl::StatusCode CodeOf(int result) {
  switch (result & 0xFF) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return absl::StatusCode::kDataLoss;
    case SQLITE_FULL:
      return absl::StatusCode::kResourceExhausted;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return absl::StatusCode::kUnavailable;
    case SQLITE_PERM:
    case SQLITE_READONLY:
      return absl::StatusCode::kPermissionDenied;
    case SQLITE_CANTOPEN:
    case SQLITE_IOERR:
      return absl::StatusCode::kUnavailable;
    default:
      return absl::StatusCode::kInternal;
  }
}

}  // namespace

absl::Status SqliteError(sqlite3* handle, std::string_view doing) {
  const int result = sqlite3_extended_errcode(handle);
  return {CodeOf(result), absl::StrCat("metadata store: ", AsAbsl(doing), ": ",
                                       sqlite3_errmsg(handle), " (SQLite error ", result, ")")};
}

Statement& Statement::Bind(int parameter, std::string_view text) {
  CHECK_EQ(sqlite3_bind_text64(statement_.get(), parameter, text.data(), text.size(), SQLITE_STATIC,
                               SQLITE_UTF8),
           SQLITE_OK);
  return *this;
}

Statement& Statement::BindBlob(int parameter, std::string_view bytes) {
  // A null pointer would bind NULL.
  CHECK_EQ(sqlite3_bind_blob64(statement_.get(), parameter, bytes.empty() ? "" : bytes.data(),
                               bytes.size(), SQLITE_STATIC),
           SQLITE_OK);
  return *this;
}

Statement& Statement::Bind(int parameter, uint64_t number) {
  CHECK_EQ(sqlite3_bind_int64(statement_.get(), parameter, static_cast<sqlite3_int64>(number)),
           SQLITE_OK);
  return *this;
}

absl::StatusOr<bool> Statement::Step() {
  const int result = sqlite3_step(statement_.get());
  if (result == SQLITE_ROW) return true;
  if (result == SQLITE_DONE) return false;
  return SqliteError(sqlite3_db_handle(statement_.get()), sqlite3_sql(statement_.get()));
}

absl::Status Statement::Run() {
  const absl::StatusOr<bool> stepped = Step();
  Reset();
  return stepped.status();
}

absl::StatusOr<uint64_t> Statement::QueryNumber() {
  const Resetting reset(*this);
  ASSIGN_OR_RETURN(const bool row, Step());
  return row ? Number(0) : 0;
}

void Statement::Reset() {
  sqlite3_reset(statement_.get());
  sqlite3_clear_bindings(statement_.get());
}

std::string Statement::Text(int column) const {
  const void* bytes = sqlite3_column_blob(statement_.get(), column);
  const int size = sqlite3_column_bytes(statement_.get(), column);
  return bytes == nullptr ? std::string() : std::string(static_cast<const char*>(bytes), size);
}

uint64_t Statement::Number(int column) const {
  return static_cast<uint64_t>(sqlite3_column_int64(statement_.get(), column));
}

absl::StatusOr<Database> Database::Open(const std::string& path) {
  return OpenWith(path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
}

absl::StatusOr<Database> Database::OpenReadOnly(const std::string& path) {
  return OpenWith(path, SQLITE_OPEN_READONLY);
}

absl::StatusOr<Database> Database::OpenWith(const std::string& path, int flags) {
  sqlite3* handle = nullptr;
  const int result = sqlite3_open_v2(path.c_str(), &handle, flags | SQLITE_OPEN_NOMUTEX, nullptr);
  CHECK(handle != nullptr);  // null only when memory ran out
  Database database(handle);
  if (result != SQLITE_OK) return SqliteError(handle, "opening " + path);
  sqlite3_extended_result_codes(handle, 1);
  sqlite3_busy_timeout(handle, 5000);
  return database;
}

absl::StatusOr<Statement> Database::Prepare(std::string_view sql) {
  sqlite3_stmt* statement = nullptr;
  if (sqlite3_prepare_v3(handle_.get(), sql.data(), static_cast<int>(sql.size()),
                         SQLITE_PREPARE_PERSISTENT, &statement, nullptr) != SQLITE_OK) {
    return SqliteError(handle_.get(), sql);
  }
  return Statement(statement);
}

absl::Status Database::PrepareAll(
    std::initializer_list<std::pair<Statement*, std::string_view>> statements) {
  for (const auto& [statement, sql] : statements) {
    ASSIGN_OR_RETURN(*statement, Prepare(sql));
  }
  return absl::OkStatus();
}

absl::Status Database::Execute(const std::string& sql) {
  if (sqlite3_exec(handle_.get(), sql.c_str(), nullptr, nullptr, nullptr) == SQLITE_OK) {
    return absl::OkStatus();
  }
  return SqliteError(handle_.get(), sql);
}

absl::StatusOr<uint64_t> Database::QueryNumber(std::string_view sql) {
  ASSIGN_OR_RETURN(Statement statement, Prepare(sql));
  return statement.QueryNumber();
}

absl::StatusOr<std::string> Database::QueryText(std::string_view sql) {
  ASSIGN_OR_RETURN(Statement statement, Prepare(sql));
  ASSIGN_OR_RETURN(const bool row, statement.Step());
  return row ? statement.Text(0) : std::string();
}

}  // namespace gabion::service
