// A file that one process at a time holds.
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace gabion::service {

// Held from Take() until it is destroyed or the process ends, however it ends. The file stays.
// Owned by whoever must be alone; move-only.
class ProcessLock {
 public:
  // Locks `path`, which is created if need be. FAILED_PRECONDITION, with the holder's process id,
  // if another process has it; else the error of the file system.
  static absl::StatusOr<ProcessLock> Take(const std::string& path);

  ProcessLock(ProcessLock&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  ProcessLock& operator=(ProcessLock&&) = delete;
  ~ProcessLock();

 private:
  explicit ProcessLock(int fd) : fd_(fd) {}
  int fd_;
};

}  // namespace gabion::service
