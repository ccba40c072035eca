// Connections for reads, so that they wait neither for commits nor, as a rule, for each other. Used
// by sqlite_store only.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "service/store/sqlite_reader.h"

namespace gabion::service {

// A fixed number of readers, lent one at a time. Owned by the store; thread-safe.
class ReaderPool {
 public:
  // A reader on loan; goes back when this goes. Lives shorter than the pool.
  class Loan {
   public:
    ~Loan() { pool_.Return(reader_); }
    Loan(const Loan&) = delete;
    Loan& operator=(const Loan&) = delete;
    SqliteReader* operator->() const { return reader_; }

   private:
    friend class ReaderPool;
    Loan(ReaderPool& pool, SqliteReader* reader) : pool_(pool), reader_(reader) {}
    ReaderPool& pool_;
    SqliteReader* reader_;
  };

  // REQUIRES: as SqliteReader::Open(); count > 0.
  static absl::StatusOr<std::unique_ptr<ReaderPool>> Open(const std::string& path, size_t count);

  // Waits for a reader if all are lent. Who has one must not ask for another.
  Loan Take();

 private:
  explicit ReaderPool(std::vector<std::unique_ptr<SqliteReader>> readers);
  void Return(SqliteReader* reader);

  const std::vector<std::unique_ptr<SqliteReader>> readers_;
  std::mutex mutex_;
  std::condition_variable returned_;
  std::vector<SqliteReader*>
      free_;  // the last one returned is the next one lent: its cache is warm
};

}  // namespace gabion::service
