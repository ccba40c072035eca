// A File in memory for tests of what stands on files: with holes, calls that wait for a turn, and
// errors on demand.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "engine/io/file.h"
#include "engine/runtime/ready_queue.h"

namespace gabion::test {

// Owned by the node under test; the test keeps a pointer to look behind it. Used on one thread.
class MemoryFile final : public io::File {
 public:
  // What a call was, for counting: "read", "write", "zero", "sync", "prefetch", "map", "resize",
  // "close".
  using Call = std::string;

  explicit MemoryFile(std::size_t size) : bytes_(size), allocated_(size, false) {}

  // Every call lets other coroutines run before it acts.
  void WaitIn(runtime::ReadyQueue& ready) { ready_ = &ready; }
  // The next call named `call` fails with `status` and changes nothing.
  void FailNext(const Call& call, absl::Status status) { failures_[call] = std::move(status); }

  bool can_punch = true;
  bool can_keep_allocated = true;
  bool is_writable = true;
  uint32_t unit = 1;

  std::vector<std::byte>& bytes() { return bytes_; }
  std::size_t count(const Call& call) const;
  // False from a write that is not durable, or a change of holes, to the next sync.
  bool synced() const { return synced_; }
  uint64_t largest_write() const { return largest_write_; }
  bool AllocatedAt(uint64_t offset) const { return allocated_[offset]; }

  ByteCount size() const override { return {bytes_.size()}; }
  bool writable() const override { return is_writable; }
  uint32_t alignment() const override { return unit; }
  std::string_view driver() const override { return "memory"; }
  Task<absl::Status> Read(ByteOffset offset, MutableBytes dst) override;
  Task<absl::Status> Write(ByteOffset offset, Bytes src, bool durable) override;
  Task<absl::Status> Zero(ByteRange range, io::ZeroMode mode) override;
  Task<absl::Status> Sync() override;
  Task<absl::Status> Prefetch(ByteRange range) override;
  Task<absl::StatusOr<std::vector<io::FileExtent>>> Map(ByteRange range,
                                                        std::size_t max_extents) override;
  Task<absl::Status> Resize(ByteCount size) override;
  Task<absl::Status> Close() override;

 private:
  Task<absl::Status> Begin(Call call);

  runtime::ReadyQueue* ready_ = nullptr;
  std::vector<std::byte> bytes_;
  std::vector<bool> allocated_;
  std::map<Call, std::size_t> counts_;
  std::map<Call, absl::Status> failures_;
  bool synced_ = true;
  uint64_t largest_write_ = 0;
};

}  // namespace gabion::test
