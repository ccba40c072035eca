// Tables of a file, read and written in pieces whatever alignment the file wants.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>

#include "absl/status/status.h"
#include "engine/base/units.h"
#include "engine/io/file.h"
#include "engine/runtime/task.h"

namespace gabion::qcow2 {

// Owned by one operation on a file that nothing else writes meanwhile; used on the file's shard,
// one call at a time. The file outlives it.
class TableFile {
 public:
  // What is read and judged at a stretch.
  static constexpr std::size_t kPiece = 64 * kKiB;

  explicit TableFile(io::File& file);
  TableFile(const TableFile&) = delete;
  TableFile& operator=(const TableFile&) = delete;

  uint64_t size() const { return file_.size().value; }
  bool writable() const { return file_.writable(); }

  // Any offset and length; what lies past the end of the file reads as zeros.
  Task<absl::Status> Read(uint64_t offset, MutableBytes dst);
  // Any offset and length. Where the file wants whole sectors, what surrounds `src` is written as
  // it is, so that a torn write harms nothing else.
  Task<absl::Status> Write(uint64_t offset, Bytes src);
  Task<absl::Status> Sync() { return file_.Sync(); }

 private:
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };

  io::File& file_;
  const uint64_t alignment_;
  const std::unique_ptr<std::byte, Free> bounce_;  // null if the file wants no alignment
};

}  // namespace gabion::qcow2
