// The system calls of a file that may have to wait for a device, behind one interface: the part in
// which a file over io_uring and a file over threads differ.
#pragma once

#include <cstdint>
#include <string_view>

#include "engine/base/units.h"
#include "engine/runtime/task.h"

namespace gabion::io {

// Owned by a file; used on its shard. Each call gives what the system call gives, with a negative
// errno for an error; it may transfer fewer bytes than asked for. Memory stays valid until the task
// is done.
class FileCalls {
 public:
  virtual ~FileCalls() = default;
  // For people: File::driver().
  virtual std::string_view name() const = 0;
  virtual Task<int64_t> Read(int fd, MutableBytes dst, ByteOffset offset) = 0;
  // `durable`: data, and the size if the write changes it, are on stable storage.
  virtual Task<int64_t> Write(int fd, Bytes src, ByteOffset offset, bool durable) = 0;
  virtual Task<int64_t> DataSync(int fd) = 0;
  // fallocate(2) with `mode`.
  virtual Task<int64_t> Allocate(int fd, int mode, ByteRange range) = 0;
};

}  // namespace gabion::io
