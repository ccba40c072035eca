// Pieces of metadata tables in memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/base/units.h"
#include "engine/io/file.h"
#include "engine/runtime/event.h"
#include "engine/runtime/ready_queue.h"
#include "engine/runtime/task.h"

namespace gabion::qcow2 {

// What the caches of several images may hold together. Owned by a shard, used on it; outlives the
// caches.
struct CacheBudget {
  uint64_t limit = ~uint64_t{0};  // bytes
  uint64_t used = 0;
};

// A run of a file that is to be written: consecutive slices as they were at one moment.
struct SliceRun {
  uint64_t offset = 0;
  std::vector<std::byte> bytes;
};

// Caches slices of one size, aligned to it, of tables in a file, by their offset in the file. Dirty
// slices stay until they have been written; others make room, the least recently used ones first
// (approximately). Owned by a node, used on its shard.
class SliceCache {
 public:
  struct Slice {
    uint64_t offset = 0;
    bool dirty = false;    // changed since it was last taken for writing
    bool writing = false;  // taken, and not known to be in the file yet
    bool used = true;      // since the hand passed
    std::unique_ptr<std::byte[]> bytes;
  };

  // Holds at most `max_bytes` besides what is dirty, and at least a few slices; fewer when `shared`
  // is used up. REQUIRES: `slice_bytes` is a power of two.
  SliceCache(io::File& file, runtime::ReadyQueue& ready, uint32_t slice_bytes, ByteCount max_bytes,
             CacheBudget& shared);
  ~SliceCache();
  SliceCache(const SliceCache&) = delete;
  SliceCache& operator=(const SliceCache&) = delete;

  uint32_t slice_bytes() const { return slice_bytes_; }

  // The slice that holds the byte at `offset`, or null if it is not here. Valid until the caller
  // suspends or calls Load().
  Slice* Find(uint64_t offset) {
    const auto found = slices_.find(offset & ~uint64_t{slice_bytes_ - 1});
    if (found == slices_.end()) return nullptr;
    found->second->used = true;
    return found->second.get();
  }

  // The same, read from the file if need be; callers that want the same slice share one read.
  Task<absl::StatusOr<Slice*>> Load(uint64_t offset);

  // Replaces what the file holds in [offset, offset + length) by zeros, which are dirty. REQUIRES:
  // whole slices.
  void InsertZeros(uint64_t offset, uint64_t length);

  void MarkDirty(Slice& slice) {
    if (slice.dirty) return;
    slice.dirty = true;
    dirty_.push_back(&slice);
  }

  std::size_t dirty_bytes() const { return dirty_.size() * slice_bytes_; }

  // Takes a copy of every dirty slice for which `wanted(slice)`, in the order of the file. They
  // stay until Written() or PutBack(), which say how it went.
  template <typename F>
  std::vector<SliceRun> TakeDirty(F wanted) {
    std::vector<Slice*> taken;
    std::vector<Slice*> left;
    for (Slice* slice : dirty_) (wanted(*slice) ? taken : left).push_back(slice);
    dirty_.swap(left);
    return Copy(taken);
  }
  void Written(const std::vector<SliceRun>& runs);
  void PutBack(const std::vector<SliceRun>& runs);

 private:
  static constexpr std::size_t kAtLeast = 16;  // slices that are kept whatever the limits

  std::vector<SliceRun> Copy(std::vector<Slice*>& slices);
  Slice& Insert(uint64_t offset, std::unique_ptr<std::byte[]> bytes);
  bool IsFull() const;
  void MakeRoom();
  template <typename F>
  void ForEach(const std::vector<SliceRun>& runs, F visit);

  io::File& file_;
  const uint32_t slice_bytes_;
  const uint64_t max_bytes_;
  CacheBudget& shared_;
  absl::flat_hash_map<uint64_t, std::unique_ptr<Slice>> slices_;
  std::vector<Slice*> clock_;
  std::size_t hand_ = 0;
  std::vector<Slice*> dirty_;
  absl::flat_hash_set<uint64_t> loading_;
  runtime::Signal loaded_;
};

}  // namespace gabion::qcow2
