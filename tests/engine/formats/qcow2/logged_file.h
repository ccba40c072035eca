// A file in memory that remembers its writes and syncs, for crashes at any place.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "engine/io/file.h"
#include "tests/engine/formats/qcow2/bytes_of_image.h"
#include "tests/support/random_source.h"
#include "tests/support_io/memory_file.h"

namespace gabion::qcow2::testing {

// Owned by a test; used on one thread. Ends the process on requests that are not aligned.
class LoggedFile final : public io::File {
 public:
  LoggedFile(const ImageFile& image, uint32_t alignment);

  test::MemoryFile& memory() { return memory_; }
  const ImageFile& bytes() { return memory_.bytes(); }
  // Writes and syncs so far.
  std::size_t steps() const { return steps_.size(); }

  // The file after a crash behind the first `steps` of them: what was synced is there, and of
  // everything later any of its sectors.
  ImageFile AfterCrash(std::size_t steps, test::RandomSource& random) const;

  ByteCount size() const override { return memory_.size(); }
  bool writable() const override { return true; }
  uint32_t alignment() const override { return alignment_; }
  std::string_view driver() const override { return "logged"; }
  Task<absl::Status> Read(ByteOffset offset, MutableBytes dst) override;
  Task<absl::Status> Write(ByteOffset offset, Bytes src, bool durable) override;
  Task<absl::Status> Zero(ByteRange range, io::ZeroMode mode) override;
  Task<absl::Status> Sync() override;
  Task<absl::Status> Prefetch(ByteRange range) override { return memory_.Prefetch(range); }
  Task<absl::StatusOr<std::vector<io::FileExtent>>> Map(ByteRange range,
                                                        std::size_t max_extents) override {
    return memory_.Map(range, max_extents);
  }
  Task<absl::Status> Resize(ByteCount size) override;
  Task<absl::Status> Close() override { return memory_.Close(); }

 private:
  struct Step {
    bool sync = false;
    uint64_t offset = 0;
    std::vector<std::byte> bytes;
  };

  void CheckAligned(ByteOffset offset, Bytes buffer) const;

  const ImageFile before_;
  const uint32_t alignment_;
  test::MemoryFile memory_;
  std::vector<Step> steps_;
};

}  // namespace gabion::qcow2::testing
