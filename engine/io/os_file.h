// What files of the operating system have in common, whether they go through the page cache or
// around it, over io_uring or over threads.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/base/units.h"
#include "engine/io/file.h"
#include "engine/io/file_calls.h"
#include "engine/io/unique_fd.h"
#include "engine/runtime/task.h"
#include "engine/runtime/worker_pool.h"

namespace gabion::io {

// What is known of an open descriptor.
struct FileTraits {
  ByteCount size;
  bool writable = false;
  bool direct = false;        // opened with O_DIRECT
  bool block_device = false;  // else a regular file
  bool in_memory = false;     // on tmpfs: no read has to wait for a device
  uint32_t alignment = 1;     // of direct I/O
};

// kInvalidArgument if `fd` is neither a regular file nor a block device.
absl::StatusOr<FileTraits> InspectFile(int fd);

// A File over `calls`, buffered or direct as `fd` was opened. `workers` outlives it. Clears
// O_NONBLOCK, which would make operations fail instead of wait.
absl::StatusOr<std::unique_ptr<File>> NewOsFile(UniqueFd fd, std::unique_ptr<FileCalls> calls,
                                                runtime::Workers& workers);

// The common half: everything but reading and writing.
class OsFile : public File {
 public:
  ByteCount size() const final { return ByteCount{traits_.size}; }
  bool writable() const final { return traits_.writable; }
  uint32_t alignment() const final { return traits_.alignment; }
  std::string_view driver() const final { return calls_->name(); }

  Task<absl::Status> Zero(ByteRange range, ZeroMode mode) final;
  Task<absl::Status> Sync() final;
  Task<absl::Status> Prefetch(ByteRange range) final;
  Task<absl::StatusOr<std::vector<FileExtent>>> Map(ByteRange range, std::size_t max_extents) final;
  Task<absl::Status> Resize(ByteCount size) final;
  Task<absl::Status> Close() final;

 protected:
  OsFile(UniqueFd fd, FileTraits traits, std::unique_ptr<FileCalls> calls,
         runtime::Workers& workers);

  int fd() const { return fd_.get(); }
  const FileTraits& traits() const { return traits_; }
  FileCalls& calls() { return *calls_; }
  runtime::Workers& workers() { return workers_; }

  // Writes `src` at `offset` through `fd`, continuing short writes; then remembers the new size.
  Task<absl::Status> WriteFully(int fd, ByteOffset offset, Bytes src, bool durable);
  void GrowTo(ByteOffset end);
  // Remembers an error after which the page cache may have dropped writes that were acknowledged:
  // the kernel reports that once, and we until the file is closed.
  void NoteLoss(const absl::Status& status);

 private:
  Task<absl::Status> AllocateFully(ByteRange range, ZeroMode mode);
  Task<absl::Status> SyncNow();

  UniqueFd fd_;
  FileTraits traits_;
  const std::unique_ptr<FileCalls> calls_;
  runtime::Workers& workers_;
  absl::Status lost_;
  bool can_punch_ = true;
  bool can_zero_range_ = true;
};

}  // namespace gabion::io
