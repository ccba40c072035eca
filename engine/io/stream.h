// The port for connections: a reliable two-way stream of bytes.
#pragma once

#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/base/units.h"
#include "engine/runtime/task.h"

namespace gabion::io {

// Owned by the session that uses it; used on one shard. One read and one write may be in flight at
// a time.
class Stream {
 public:
  virtual ~Stream() = default;
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  // Reads what is there, at least one byte, at most dst.size(); 0 when the peer has closed its
  // side. Ready at once when bytes are there already. REQUIRES: `dst` is not empty.
  virtual Task<absl::StatusOr<std::size_t>> ReadSome(MutableBytes dst) = 0;

  // Writes all of `pieces`, in order, gathered in as few system calls as possible. The pieces and
  // the array stay valid until the task is done.
  virtual Task<absl::Status> WriteAll(std::span<const Bytes> pieces) = 0;

  // Ends reading: a read in flight, and every later one once what has arrived is taken, gives 0.
  // Writing goes on. Can be called again.
  virtual void ShutdownRead() = 0;

  // Ends both directions: a read in flight gives 0 or an error, a write in flight an error. Can be
  // called again.
  virtual void Shutdown() = 0;

  // Who is at the other end, for people: "unix:uid=0,pid=17" or "127.0.0.1:40312".
  virtual const std::string& peer() const = 0;

 protected:
  Stream() = default;
};

}  // namespace gabion::io
