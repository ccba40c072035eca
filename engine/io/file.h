// The port for files: what image formats see of the operating system.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/base/units.h"
#include "engine/runtime/task.h"

namespace gabion::io {

// A run of a file that holds data, or a hole that reads as zeros and takes no space.
struct FileExtent {
  ByteRange range;
  bool hole = false;
  friend bool operator==(const FileExtent&, const FileExtent&) = default;
};

enum class ZeroMode {
  kPunch,          // give the space back
  kKeepAllocated,  // allocate what is not allocated
};

// An open file. Owned by the node that uses it; used on one shard. Calls may run concurrently
// except Resize() and Close(); buffers stay valid until the task is done. Errors carry the
// operation and the cause, not the path.
class File {
 public:
  virtual ~File() = default;
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  // Size in bytes as of opening, and of the writes and resizes through this object since.
  virtual ByteCount size() const = 0;
  virtual bool writable() const = 0;
  // Offsets, lengths and buffer addresses must be multiples of this (O_DIRECT); 1 when the page
  // cache is used. The end of the file counts as aligned: the file rounds that request itself.
  virtual uint32_t alignment() const = 0;
  // Which implementation serves it, for people: "io_uring" or "threads".
  virtual std::string_view driver() const = 0;

  // What lies past the end of the file reads as zeros.
  virtual Task<absl::Status> Read(ByteOffset offset, MutableBytes dst) = 0;
  // A write past the end makes the file longer. `durable`: on stable storage before the task is
  // done.
  virtual Task<absl::Status> Write(ByteOffset offset, Bytes src, bool durable) = 0;
  // Makes `range` read as zeros without writing them and without changing the size. kUnimplemented,
  // with nothing changed, if this file cannot.
  virtual Task<absl::Status> Zero(ByteRange range, ZeroMode mode) = 0;
  // Everything whose task was done before this call, data and size, is on stable storage when it is
  // done.
  virtual Task<absl::Status> Sync() = 0;
  // Hint: `range` will be read soon.
  virtual Task<absl::Status> Prefetch(ByteRange range) = 0;
  // Data and holes of a prefix of `range`, at least one byte, at most `max_extents` entries; all
  // data if the file system does not tell. REQUIRES: `range` is not empty and lies within size().
  virtual Task<absl::StatusOr<std::vector<FileExtent>>> Map(ByteRange range,
                                                            std::size_t max_extents) = 0;
  // Sets the size; a longer file gains a hole. Runs alone.
  virtual Task<absl::Status> Resize(ByteCount size) = 0;
  // Runs alone, last, once. Does not sync. Also lets go of locks.
  virtual Task<absl::Status> Close() = 0;

 protected:
  File() = default;
};

}  // namespace gabion::io
