// The little of SQLite's C interface that the store needs, with owners and Statuses. Used by
// this folder only; a connection and its statements by one thread at a time.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace gabion::service {

// A prepared statement. Lives shorter than its Database.
class Statement {
 public:
  Statement() = default;
  explicit Statement(sqlite3_stmt* statement) : statement_(statement) {}

  // Values of the parameters ?1, ?2...; texts must stay valid until the next Reset().
  Statement& Bind(int parameter, std::string_view text);
  Statement& BindBlob(int parameter, std::string_view bytes);
  Statement& Bind(int parameter, uint64_t number);

  // Steps to the next row: true if there is one.
  absl::StatusOr<bool> Step();
  // Runs a statement that yields no rows, and resets it.
  absl::Status Run();
  // Runs a statement that yields one number, and resets it; 0 if it yields none.
  absl::StatusOr<uint64_t> QueryNumber();
  void Reset();

  // Columns of the row, from 0.
  std::string Text(int column) const;
  uint64_t Number(int column) const;

 private:
  struct Finalize {
    void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
  };
  std::unique_ptr<sqlite3_stmt, Finalize> statement_;
};

// Resets a statement at the end of a scope, so that no read transaction stays open.
class Resetting {
 public:
  explicit Resetting(Statement& statement) : statement_(statement) {}
  ~Resetting() { statement_.Reset(); }
  Resetting(const Resetting&) = delete;
  Resetting& operator=(const Resetting&) = delete;

 private:
  Statement& statement_;
};

// A connection.
class Database {
 public:
  // Opens or creates the file.
  static absl::StatusOr<Database> Open(const std::string& path);
  static absl::StatusOr<Database> OpenReadOnly(const std::string& path);

  absl::StatusOr<Statement> Prepare(std::string_view sql);
  absl::Status PrepareAll(
      std::initializer_list<std::pair<Statement*, std::string_view>> statements);
  // Runs one or more statements, and drops what they yield.
  absl::Status Execute(const std::string& sql);
  // The number that a statement with one row and column yields.
  absl::StatusOr<uint64_t> QueryNumber(std::string_view sql);
  absl::StatusOr<std::string> QueryText(std::string_view sql);

 private:
  struct Close {
    void operator()(sqlite3* handle) const { sqlite3_close_v2(handle); }
  };
  explicit Database(sqlite3* handle) : handle_(handle) {}
  static absl::StatusOr<Database> OpenWith(const std::string& path, int flags);
  std::unique_ptr<sqlite3, Close> handle_;
};

// The last error of a connection, with its most specific code.
absl::Status SqliteError(sqlite3* handle, std::string_view doing);

}  // namespace gabion::service
