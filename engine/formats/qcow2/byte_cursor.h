// Reads records of a table one after the other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "engine/base/units.h"
#include "engine/formats/qcow2/table_file.h"
#include "engine/runtime/task.h"

namespace gabion::qcow2 {

// A place in a file that moves on, with a buffer of bounded size ahead of it. Owned and used by
// one walk; the file outlives it.
class ByteCursor {
 public:
  // No record has a part longer than this.
  static constexpr std::size_t kMaxPart = 64 * kKiB;

  // Reads [offset, end) of `file`.
  ByteCursor(TableFile& file, uint64_t offset, uint64_t end)
      : file_(file), at_(offset), end_(end) {}

  uint64_t offset() const { return at_; }

  // Makes the next `length` bytes available as bytes(), and moves behind them. kOutOfRange if they
  // pass the end; what the file answers if it cannot read. REQUIRES: length <= kMaxPart.
  Task<absl::Status> Take(std::size_t length);
  Bytes bytes() const { return taken_; }
  // Moves on to a multiple of 8 bytes from `start`, or to the end.
  void AlignTo8(uint64_t start);

 private:
  TableFile& file_;
  uint64_t at_;
  const uint64_t end_;
  std::vector<std::byte> buffer_;  // of the bytes from buffer_at_
  uint64_t buffer_at_ = 0;
  Bytes taken_;
};

}  // namespace gabion::qcow2
