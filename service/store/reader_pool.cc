#include "service/store/reader_pool.h"

#include <utility>

#include "engine/base/check.h"
#include "engine/base/status_macros.h"

namespace gabion::service {

absl::StatusOr<std::unique_ptr<ReaderPool>> ReaderPool::Open(const std::string& path,
                                                             size_t count) {
  CHECK_GT(count, 0u);
  std::vector<std::unique_ptr<SqliteReader>> readers;
  while (readers.size() < count) {
    ASSIGN_OR_RETURN(std::unique_ptr<SqliteReader> reader, SqliteReader::Open(path));
    readers.push_back(std::move(reader));
  }
  return std::unique_ptr<ReaderPool>(new ReaderPool(std::move(readers)));
}

ReaderPool::ReaderPool(std::vector<std::unique_ptr<SqliteReader>> readers)
    : readers_(std::move(readers)) {
  for (const auto& reader : readers_) free_.push_back(reader.get());
}

ReaderPool::Loan ReaderPool::Take() {
  std::unique_lock lock(mutex_);
  returned_.wait(lock, [&] { return !free_.empty(); });
  SqliteReader* const reader = free_.back();
  free_.pop_back();
  return {*this, reader};
}

void ReaderPool::Return(SqliteReader* reader) {
  const std::lock_guard lock(mutex_);
  free_.push_back(reader);
  returned_.notify_one();
}

}  // namespace gabion::service
