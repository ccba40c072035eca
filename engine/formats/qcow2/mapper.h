// From places on the disk to places in the file, and back to the tables.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/base/units.h"
#include "engine/block/range_lock.h"
#include "engine/formats/qcow2/allocator.h"
#include "engine/formats/qcow2/reclaimer.h"
#include "engine/formats/qcow2/tables.h"
#include "engine/runtime/task.h"

namespace gabion::qcow2 {

enum class SegmentKind : uint8_t {
  kUnallocated,     // what the backing image has, or zeros
  kZero,            // zeros, without space
  kZeroAllocated,   // zeros, and `host_offset` is reserved
  kData,            // at `host_offset`
  kCompressedData,  // in `entry`
};

// A run of the disk that one part of the file stands for. A plain value.
struct Segment {
  ByteRange guest;
  SegmentKind kind = SegmentKind::kUnallocated;
  // Where the run is, or would be, in the file; 0 if it has no cluster. Also for kUnallocated: a
  // cluster can have subclusters without content.
  uint64_t host_offset = 0;
  bool copied = false;  // the cluster belongs to this disk only, and may be written
  uint64_t entry = 0;   // kCompressed: the L2 entry
};

// An L2 entry. A plain value.
struct L2Entry {
  uint64_t word = 0;
  uint64_t bitmap = 0;  // of extended entries: allocated in the low half, zero in the high half
};

// Metadata only: no data is read or written here. Owned by a node, used on its shard.
class Mapper {
 public:
  Mapper(Tables& tables, Allocator& allocator, Reclaimer& reclaimer);

  // The first segment of `range`, which is not empty; it may go on behind where a table that is not
  // here would have to be loaded. kDataLoss: the entry makes no sense.
  Task<absl::StatusOr<Segment>> Find(ByteRange range) {
    Segment segment;
    if (FindHere(range, segment)) return absl::StatusOr<Segment>(segment);
    return LoadAndFind(range, TableAt(range.offset.value));
  }

  // The same where nothing has to be loaded for it: false, and Find() has the answer, or the error.
  bool FindHere(ByteRange range, Segment& segment);

  // Makes sure that there is an L2 table for `guest_offset` that may be changed, and that its slice
  // is here: valid until the caller suspends.
  Task<absl::StatusOr<SliceCache::Slice*>> ForChange(uint64_t guest_offset);

  // The entry of the cluster at `guest_offset`, in the slice that holds it.
  L2Entry EntryIn(const SliceCache::Slice& slice, uint64_t guest_offset) const;

  // kDataLoss: the entry there is not one that `now` may replace.
  absl::Status CheckReplace(const SliceCache::Slice& slice, uint64_t guest_offset,
                            L2Entry now) const;
  // Puts `now` there. The clusters that the old entry had, and `now` has not, are given up.
  // REQUIRES: CheckReplace() has agreed.
  void Replace(SliceCache::Slice& slice, uint64_t guest_offset, L2Entry now);

  // kDataLoss if `host_cluster` holds metadata.
  absl::Status CheckIsData(uint64_t host_cluster) const;

  // Bytes of the disk that one slice of an L2 table describes.
  uint64_t SliceCoverage() const {
    return (tables_.l2.slice_bytes() >> tables_.geometry.l2_entry_bits())
           << tables_.geometry.cluster_bits;
  }

 private:
  struct Clusters {
    uint64_t first = 0;
    uint64_t count = 0;
  };
  // Those that an entry refers to, and the one that replaces it does not.
  Clusters Lost(L2Entry old, L2Entry now) const;

  uint64_t TableAt(uint64_t guest_offset) const {
    return tables_.l1[tables_.L1Index(guest_offset)] & kOffsetMask;
  }
  uint64_t EntryPlace(uint64_t table, uint64_t guest_offset) const {
    return tables_.L2EntryOffset(table, tables_.L2Index(guest_offset));
  }
  SliceCache::Slice* SliceIfHere(uint64_t table, uint64_t guest_offset) {
    return tables_.l2.Find(EntryPlace(table, guest_offset));
  }
  Segment NoTable(ByteRange range) const;
  absl::StatusOr<Segment> InSlice(ByteRange range, const SliceCache::Slice& slice) const;
  Task<absl::StatusOr<Segment>> LoadAndFind(ByteRange range, uint64_t table);
  absl::Status CheckTable(uint64_t table) const;
  void SetEntry(SliceCache::Slice& slice, uint64_t guest_offset, L2Entry entry);
  bool FindOne(ByteRange range, Segment& segment);
  bool InSlice(ByteRange range, const SliceCache::Slice& slice, Segment& segment) const;
  // The part of a cluster with one status that begins at `guest_offset`.
  bool UnitAt(uint64_t guest_offset, L2Entry entry, Segment& segment) const;
  // Null: nothing.
  const char* WrongWith(L2Entry entry) const;

  Task<absl::StatusOr<uint64_t>> TableForChange(uint64_t l1_index);
  Task<absl::Status> MakeTable(uint64_t l1_index);
  Task<absl::Status> CopyTable(uint64_t from, uint64_t to);

  Tables& tables_;
  Allocator& allocator_;
  Reclaimer& reclaimer_;
  block::RangeLock making_;  // tables, by their index in the L1
};

}  // namespace gabion::qcow2
