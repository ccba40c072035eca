// Locks on image files that QEMU understands: byte ranges of open file description locks.
#pragma once

#include <optional>
#include <string_view>

#include "absl/status/status.h"

namespace gabion::io {

// Byte 100 + i of the file is held by who uses permission i, byte 200 + i by who does not share it
// with others; i: 0 consistent read, 1 write, 2 write unchanged, 3 resize. All are shared (read)
// locks; to look for a conflict is to test for a write lock.
enum class LockMode {
  kReader,  // uses 0; forbids 1 and 3
  kWriter,  // uses 0, 1 and 3; forbids 1 and 3
};

// The payload of a conflict's Status: the byte in question, in decimal.
inline constexpr std::string_view kLockBytePayload = "gabion/lock-byte";

// The locks of one open file description; they go when its last descriptor is closed, and survive
// being handed to another process. Owned by whoever owns the descriptor, which it borrows; used by
// one thread at a time. Nothing blocks.
class FileLock {
 public:
  // `held`: what the description has already, through another object or another process.
  // REQUIRES: `fd` is open for reading, and for longer than this object is used.
  explicit FileLock(int fd, std::optional<LockMode> held = std::nullopt) : fd_(fd), mode_(held) {}

  // Takes the locks of `mode`, or changes to them without a gap in what both modes have in common.
  // kFailedPrecondition, and the locks as before, if somebody else's stand against it, be it in
  // this process through another open. Two who ask at the same instant may both be refused.
  absl::Status Acquire(LockMode mode);
  // Lets go of all of them. No effect without locks.
  void Release();

  std::optional<LockMode> mode() const { return mode_; }

 private:
  int fd_;
  std::optional<LockMode> mode_;
};

}  // namespace gabion::io
