// A file that goes around the page cache (O_DIRECT).
#pragma once

#include <memory>

#include "engine/io/os_file.h"

namespace gabion::io {

// Offsets and lengths are multiples of alignment(), but for an end at or behind size(). Memory that
// is not aligned is copied through a bounce buffer.
//
// The last, partial unit of a file whose size is no multiple: a read rounds up into a bounce
// buffer; a write of it goes through a second, buffered descriptor of the same file, because the
// other ways (write a padded unit, then cut it off again) leave a file of the wrong size if the
// machine stops in between. For regular files alignment() is at least kTailUnit, so that the page
// that holds the tail is never written directly, and the kernel keeps the two coherent.
// Ownership and threads: as File says.
class DirectFile final : public OsFile {
 public:
  static constexpr uint32_t kTailUnit = 4096;

  // `tail` is the buffered descriptor; not valid for files that are not written or have no tail.
  DirectFile(UniqueFd fd, UniqueFd tail, FileTraits traits, std::unique_ptr<FileCalls> calls,
             runtime::Workers& workers)
      : OsFile(std::move(fd), traits, std::move(calls), workers), tail_(std::move(tail)) {}

  Task<absl::Status> Read(ByteOffset offset, MutableBytes dst) override;
  Task<absl::Status> Write(ByteOffset offset, Bytes src, bool durable) override;

 private:
  Task<absl::Status> WriteBounced(ByteOffset offset, Bytes src, bool durable);

  const UniqueFd tail_;
};

}  // namespace gabion::io
