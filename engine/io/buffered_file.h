// A file that goes through the page cache.
#pragma once

#include <memory>

#include "engine/io/os_file.h"
#include "engine/runtime/clock.h"

namespace gabion::io {

// Reads what is cached at once, on the shard; the rest through FileCalls. Writes into the page
// cache at once too, which is several times faster than handing the copy to a kernel thread, as
// long as that does not wait: a write that took long (the system is writing back, or the page had
// to be read first) sends the following ones through FileCalls for a while.
// Ownership and threads: as File says.
class BufferedFile final : public OsFile {
 public:
  BufferedFile(UniqueFd fd, FileTraits traits, std::unique_ptr<FileCalls> calls,
               runtime::Workers& workers);

  Task<absl::Status> Read(ByteOffset offset, MutableBytes dst) override;
  Task<absl::Status> Write(ByteOffset offset, Bytes src, bool durable) override;

 private:
  // What can be done at once; the number of bytes done.
  std::size_t ReadNow(ByteOffset offset, MutableBytes dst);
  std::size_t WriteNow(ByteOffset offset, Bytes src);
  Task<absl::Status> ReadRest(ByteOffset offset, MutableBytes dst);

  runtime::Clock& clock_;
  // RWF_NOWAIT until the file system says that it does not know it.
  int read_flags_;
  int write_flags_;
  bool read_now_ = true;
  runtime::Instant write_now_after_;
};

}  // namespace gabion::io
