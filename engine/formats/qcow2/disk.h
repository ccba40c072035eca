// The node of a qcow2 image: what qcow2_node.h promises. Internal to this folder.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/base/align.h"
#include "engine/block/range_lock.h"
#include "engine/block/staging.h"
#include "engine/formats/qcow2/allocator.h"
#include "engine/formats/qcow2/commit.h"
#include "engine/formats/qcow2/epochs.h"
#include "engine/formats/qcow2/inflater.h"
#include "engine/formats/qcow2/mapper.h"
#include "engine/formats/qcow2/qcow2_node.h"
#include "engine/formats/qcow2/reclaimer.h"
#include "engine/formats/qcow2/tables.h"

namespace gabion::qcow2 {

// Owned by its image, used on its shard. Sources: disk.cc, disk_read.cc, disk_write.cc,
// disk_zero.cc, disk_resize.cc.
class Disk final : public Qcow2Node {
 public:
  Disk(std::unique_ptr<io::File> file, Header header, Qcow2Options options,
       runtime::ReadyQueue& ready);

  // Once, first.
  Task<absl::Status> Load() { return tables_.Load(Access::kRead); }

  Task<absl::Status> BeginWriting() override;
  Task<absl::Status> EndWriting() override;
  const Header& header() const override { return tables_.header; }
  std::vector<std::string> warnings() const override { return tables_.warnings; }
  absl::Status health() const override { return tables_.unwritable; }

 private:
  // Where bytes that need a cluster, or a part of one, will go.
  struct Place {
    ByteRange guest;        // of the bytes to be written
    uint64_t host = 0;      // where they go
    uint64_t unit = 0;      // bytes that are filled as a whole: a cluster or a subcluster
    bool is_new = false;    // the clusters have just been allocated
    bool is_fresh = false;  // and were never written
    bool is_whole = false;  // all subclusters of the clusters will be allocated

    ByteRange Head() const {
      const uint64_t begin = RoundDown(guest.offset.value, unit);
      return Range(begin, guest.offset.value - begin);
    }
    ByteRange Tail() const {
      const uint64_t end = guest.end().value;
      return Range(end, RoundUp(end, unit) - end);
    }
  };

  Task<absl::Status> DoRead(ByteRange range, MutableBytes dst) override;
  Task<absl::Status> DoWrite(ByteRange range, Bytes src, block::WriteOptions options) override;
  Task<absl::Status> DoZero(ByteRange range, block::ZeroOptions options) override;
  Task<absl::Status> DoDiscard(ByteRange range) override;
  Task<absl::Status> DoFlush() override;
  Task<absl::Status> DoCache(ByteRange range) override;
  Task<absl::StatusOr<block::ExtentList>> DoBlockStatus(ByteRange range,
                                                        std::size_t max_extents) override;
  Task<absl::Status> DoResize(ByteCount size) override;
  Task<absl::Status> DoClose() override;

  // disk.cc
  absl::Status CheckWritable() const;
  Task<absl::Status> CheckRefcountsOfTables();
  // The error `status`; if it says that the image contradicts itself, the file says so from now on.
  Task<absl::Status> Found(const absl::Status& status);
  // Has tables written if much of them waits for it.
  Task<absl::Status> CommitIfMuch();
  Task<absl::Status> AfterChange(absl::Status status, bool durable);

  // disk_read.cc; these need a pass.
  Task<absl::Status> ReadSegments(ByteRange range, MutableBytes dst);
  Task<absl::Status> ReadBacking(ByteRange range, MutableBytes dst);
  // Whether `range`, of which all has this kind, reads as zeros by what the tables say.
  bool IsZeroByTables(SegmentKind kind, ByteRange range) const;
  Task<absl::StatusOr<bool>> AppendBacking(ByteRange range, std::size_t max_extents,
                                           block::ExtentList& extents);

  // disk_write.cc; those below WriteLocked() need a pass.
  bool IsInPlace(const Segment& segment) const {
    return segment.kind == SegmentKind::kData && segment.copied;
  }
  // The segment has just been found: nothing has suspended since.
  Task<absl::Status> WriteInPlace(Segment segment, Bytes src, bool durable);
  Task<absl::Status> WriteSegments(ByteRange range, Bytes src);
  Task<absl::Status> WriteLocked(ByteRange range, Bytes src);
  // REQUIRES: the caller holds `changing_` for the clusters.
  Task<absl::Status> WriteInOrder(ByteRange range, Bytes src);
  Task<absl::StatusOr<uint64_t>> WriteNew(ByteRange range, Bytes src, Segment segment);
  Task<absl::StatusOr<Place>> FindPlace(ByteRange range, Segment segment);
  Task<absl::Status> WriteFilled(Place place, Bytes src, SegmentKind old_kind);
  Task<absl::Status> WriteMerged(Place place, Bytes src, bool fill_is_zero);
  Task<absl::Status> WriteApart(Place place, Bytes src, bool fill_is_zero);
  Task<absl::Status> ReadFill(ByteRange range, MutableBytes dst, bool fill_is_zero);
  Task<absl::Status> Link(Place place);
  L2Entry Linked(const Place& place, uint64_t cluster_start, L2Entry old) const;
  Task<absl::Status> Abandon(Place place);
  ByteRange WholeClusters(ByteRange range) const;

  // disk_zero.cc; these take passes as they need them, but those that say `needs a pass`.
  enum class ZeroHow : uint8_t {
    kUnmap,    // the space is given back
    kOwn,      // likewise, and the image says so itself, also if nothing else would show
    kKeep,     // it stays, or is allocated
    kDiscard,  // it is given back; what has none is left alone
    kRemove,   // as if it had never been written
  };
  // What of `range` is made of whole units of `unit` bytes; the disk's last one may be short.
  ByteRange WholeUnits(ByteRange range, uint64_t unit) const;
  bool CanZeroByTables(ZeroHow how) const {
    if (tables_.geometry.version >= 3) return true;
    return options_.backing == nullptr && how != ZeroHow::kKeep && how != ZeroHow::kOwn;
  }
  Task<absl::Status> ZeroRange(ByteRange range, block::ZeroOptions options);
  Task<absl::StatusOr<bool>> ReadsZero(ByteRange range);
  Task<absl::Status> WriteZeros(ByteRange range);
  Task<absl::Status> ZeroTables(ByteRange range, ZeroHow how);
  Task<absl::StatusOr<uint64_t>> ZeroSome(ByteRange range, ZeroHow how);
  bool MayKeepClusters(ZeroHow how) const {
    return how == ZeroHow::kKeep || tables_.geometry.extended;
  }
  Task<absl::Status> RewriteCompressed(ByteRange range);  // needs a pass
  Task<absl::Status> Reserve(ByteRange range);            // needs a pass
  Task<absl::Status> CoverByFile(ByteRange host);
  Task<absl::Status> LinkZero(Place place);                      // needs a pass
  Task<absl::Status> ZeroEntries(ByteRange range, ZeroHow how);  // needs a pass
  L2Entry Zeroed(L2Entry old, uint64_t cluster_start, ByteRange range, ZeroHow how) const;

  // disk_resize.cc
  Task<absl::Status> Grow(uint64_t size);
  Task<absl::Status> Shrink(uint64_t size);
  Task<absl::Status> GrowL1(uint64_t size);
  Task<absl::Status> ZeroBehind(uint64_t old_size, uint64_t size);

  const Qcow2Options options_;
  const std::unique_ptr<io::File> file_;
  CacheBudget own_budget_;
  Tables tables_;
  block::RangeLock commit_lock_;
  Epochs epochs_;
  Allocator allocator_;
  Reclaimer reclaimer_;
  Mapper mapper_;
  Commit commit_;
  Inflater inflater_;
  block::RangeLock changing_;  // clusters whose entries are about to change, in bytes of the disk
  block::StagingPool staging_;
  block::RangeLock beginning_;
  bool may_write_ = false;
};

}  // namespace gabion::qcow2
