#include "engine/formats/qcow2/allocator.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/bytes.h"
#include "engine/base/check.h"
#include "engine/base/status_macros.h"
#include "engine/base/text.h"

namespace gabion::qcow2 {
namespace {

constexpr block::RangeLockMode kExclusive = block::RangeLockMode::kExclusive;
constexpr ByteRange kAll = Range(0, 1);  // for locks that have one place

}  // namespace

Allocator::Allocator(Tables& tables, block::RangeLock& commit_lock)
    : tables_(tables), commit_lock_(commit_lock), lock_(tables.ready) {}

uint64_t Allocator::RefcountsInSlice() const {
  return (uint64_t{tables_.refcounts.slice_bytes()} * 8) >> tables_.geometry.refcount_order;
}

bool Allocator::HasBlock(uint64_t cluster) const {
  const uint64_t block = BlockOf(cluster);
  return block < tables_.refcount_table.size() && tables_.refcount_table[block] != 0;
}

Task<absl::StatusOr<Allocator::Place>> Allocator::Find(uint64_t cluster) {
  const uint64_t block = tables_.refcount_table[BlockOf(cluster)];
  const Geometry& geometry = tables_.geometry;
  const auto known = tables_.metadata.find(geometry.ClusterOf(block));
  if (geometry.InCluster(block) != 0 || block >= tables_.end || known == tables_.metadata.end() ||
      known->second != Metadata::kRefcountBlock) {
    const std::string what =
        absl::StrCat("refcount block ", BlockOf(cluster), " is at offset ", block);
    co_return co_await tables_.MarkCorrupt(what);
  }
  const uint64_t index = cluster & ((uint64_t{1} << geometry.refcount_block_bits()) - 1);
  const uint64_t slice_number = index / RefcountsInSlice();
  const uint64_t slice_offset = block + slice_number * tables_.refcounts.slice_bytes();
  CO_ASSIGN_OR_RETURN(SliceCache::Slice* const slice,
                      co_await tables_.refcounts.Load(slice_offset));
  co_return Place{slice, index % RefcountsInSlice()};
}

Task<absl::StatusOr<uint64_t>> Allocator::Refcount(uint64_t cluster) {
  if (!HasBlock(cluster)) co_return uint64_t{0};
  CO_ASSIGN_OR_RETURN(const Place place, co_await Find(cluster));
  co_return LoadRefcount(place.slice->bytes.get(), place.index, tables_.geometry.refcount_order);
}

Task<absl::Status> Allocator::Overlap(uint64_t cluster) {
  const auto found = tables_.metadata.find(cluster);
  CHECK(found != tables_.metadata.end());
  const std::string what = absl::StrCat("cluster ", cluster, " has refcount 0 and holds ",
                                        AsAbsl(NameOf(found->second)));
  co_return co_await tables_.MarkCorrupt(what);
}

Task<absl::StatusOr<Allocator::Run>> Allocator::Allocate(uint64_t clusters) {
  CHECK_GT(clusters, 0u);
  const block::RangeLock::Guard guard = co_await lock_.Acquire(kAll, kExclusive);
  for (;;) {
    if (!tables_.unwritable.ok()) co_return tables_.unwritable;
    if (next_ >= kMaxHostOffset >> tables_.geometry.cluster_bits) {
      co_return absl::ResourceExhaustedError(
          "the file has reached the largest size of a qcow2 file");
    }
    if (!HasBlock(next_)) {
      CO_RETURN_IF_ERROR(co_await AddBlock());
      continue;
    }
    CO_ASSIGN_OR_RETURN(const Place place, co_await Find(next_));
    CO_ASSIGN_OR_RETURN(const Run run, Take(place, clusters));
    if (run.clusters == 0) continue;
    const uint64_t first = tables_.geometry.ClusterOf(run.offset);
    for (uint64_t i = first; i < first + run.clusters; ++i) {
      if (tables_.metadata.contains(i)) co_return co_await Overlap(i);
    }
    co_return run;
  }
}

// From the first free cluster in the slice, if there is one.
absl::StatusOr<Allocator::Run> Allocator::Take(Place place, uint64_t clusters) {
  const uint32_t order = tables_.geometry.refcount_order;
  std::byte* const bytes = place.slice->bytes.get();
  const uint64_t count = RefcountsInSlice();
  uint64_t index = place.index;
  while (index < count && LoadRefcount(bytes, index, order) != 0) ++index;
  next_ += index - place.index;
  if (index == count) return Run{};
  uint64_t length = 0;
  while (length < clusters && index + length < count &&
         LoadRefcount(bytes, index + length, order) == 0) {
    StoreRefcount(bytes, index + length, order, 1);
    ++length;
  }
  tables_.refcounts.MarkDirty(*place.slice);
  const Run run{next_ << tables_.geometry.cluster_bits, length, IsFresh(next_)};
  next_ += length;
  tables_.NoteEnd(next_ << tables_.geometry.cluster_bits);
  return run;
}

void Allocator::CountOne(uint64_t cluster) {
  const Geometry& geometry = tables_.geometry;
  const uint64_t block = tables_.refcount_table[BlockOf(cluster)];
  const uint64_t index = cluster & ((uint64_t{1} << geometry.refcount_block_bits()) - 1);
  const uint64_t offset = block + index / RefcountsInSlice() * tables_.refcounts.slice_bytes();
  SliceCache::Slice* const slice = tables_.refcounts.Find(offset);
  CHECK(slice != nullptr);
  StoreRefcount(slice->bytes.get(), index % RefcountsInSlice(), geometry.refcount_order, 1);
  tables_.refcounts.MarkDirty(*slice);
}

Task<absl::Status> Allocator::AddBlock() {
  const uint64_t cluster = next_;
  const uint64_t block = BlockOf(cluster);
  if (block >= tables_.refcount_table.size()) co_return co_await GrowTable();
  if (tables_.metadata.contains(cluster)) co_return co_await Overlap(cluster);
  SetBlock(block, cluster);
  CountOne(cluster);
  next_ = cluster + 1;
  tables_.NoteEnd(next_ << tables_.geometry.cluster_bits);
  co_return absl::OkStatus();
}

void Allocator::SetBlock(uint64_t block, uint64_t cluster) {
  const uint64_t offset = cluster << tables_.geometry.cluster_bits;
  tables_.refcounts.InsertZeros(offset, tables_.geometry.cluster_size());
  tables_.refcount_table[block] = offset;
  tables_.dirty_refcount_table.insert(block);
  tables_.SetMetadata(Metadata::kRefcountBlock, offset, tables_.geometry.cluster_size());
}

uint64_t Allocator::MissingBlocks(uint64_t first, uint64_t clusters) const {
  uint64_t missing = 0;
  for (uint64_t block = BlockOf(first); block <= BlockOf(first + clusters - 1); ++block) {
    const bool is_there =
        block < tables_.refcount_table.size() && tables_.refcount_table[block] != 0;
    if (!is_there) ++missing;
  }
  return missing;
}

// They are free, and have blocks.
Task<absl::Status> Allocator::CountRange(uint64_t first, uint64_t clusters) {
  for (uint64_t i = first; i < first + clusters; ++i) {
    CO_ASSIGN_OR_RETURN(const Place place, co_await Find(i));
    StoreRefcount(place.slice->bytes.get(), place.index, tables_.geometry.refcount_order, 1);
    tables_.refcounts.MarkDirty(*place.slice);
  }
  co_return absl::OkStatus();
}

// The blocks that are missing there come first, in the same run.
Task<absl::StatusOr<uint64_t>> Allocator::AllocateTogether(uint64_t clusters) {
  const block::RangeLock::Guard guard = co_await lock_.Acquire(kAll, kExclusive);
  const uint64_t bits = tables_.geometry.cluster_bits;
  uint64_t first = tables_.end >> bits;
  uint64_t blocks = 0;
  for (;;) {
    blocks = MissingBlocks(first, clusters + blocks);
    const uint64_t all = clusters + blocks;
    if (MissingBlocks(first, all) > blocks) continue;
    if (BlockOf(first + all - 1) >= tables_.refcount_table.size()) {
      const uint64_t next = next_;  // there may be free clusters before the table's new place
      CO_RETURN_IF_ERROR(co_await GrowTable());
      next_ = next;
      first = std::max(first, tables_.end >> bits);
      blocks = 0;
      continue;
    }
    // What lies behind the end of the file may be in use all the same.
    uint64_t used = first;
    for (uint64_t i = first; i < first + all; ++i) {
      if (!HasBlock(i)) continue;
      CO_ASSIGN_OR_RETURN(const Place place, co_await Find(i));
      const bool is_free =
          LoadRefcount(place.slice->bytes.get(), place.index, tables_.geometry.refcount_order) == 0;
      if (!is_free || tables_.metadata.contains(i)) used = i + 1;
    }
    if (used == first) break;
    first = used;
    blocks = 0;
  }
  if (!tables_.unwritable.ok()) co_return tables_.unwritable;
  const uint64_t all = clusters + blocks;
  uint64_t next_block = first;
  for (uint64_t block = BlockOf(first); block <= BlockOf(first + all - 1); ++block) {
    if (tables_.refcount_table[block] == 0) SetBlock(block, next_block++);
  }
  tables_.NoteEnd((first + all) << bits);
  CO_RETURN_IF_ERROR(co_await CountRange(first, all));
  co_return (first + blocks) << bits;
}

// The table describes nothing from `first` on. A larger one is put there, behind the blocks that
// describe both.
Task<absl::Status> Allocator::GrowTable() {
  const Geometry& geometry = tables_.geometry;
  const uint64_t old_entries = tables_.refcount_table.size();
  const uint64_t per_block = uint64_t{1} << geometry.refcount_block_bits();
  const uint64_t first = old_entries * per_block;
  uint64_t blocks = 1;
  uint64_t table_clusters = 0;
  for (;;) {
    const uint64_t entries = std::max(old_entries + old_entries / 2, old_entries + blocks);
    table_clusters = geometry.Clusters(entries * sizeof(uint64_t));
    const uint64_t needed = (blocks + table_clusters + per_block - 1) / per_block;
    if (needed <= blocks) break;
    blocks = needed;
  }
  if (table_clusters << geometry.cluster_bits > kMaxRefcountTableBytes) {
    co_return absl::ResourceExhaustedError(
        "the refcount table has reached its largest size; a larger cluster size allows larger "
        "files");
  }
  for (uint64_t i = first; i < first + blocks + table_clusters; ++i) {
    if (tables_.metadata.contains(i)) co_return co_await Overlap(i);
  }
  co_return co_await ReplaceTable(first, blocks, table_clusters);
}

// The new blocks and table are durable before the header names the table (W3); until it does,
// everything can be taken back.
Task<absl::Status> Allocator::ReplaceTable(uint64_t first, uint64_t blocks,
                                           uint64_t table_clusters) {
  const Geometry& geometry = tables_.geometry;
  const uint64_t bits = geometry.cluster_bits;
  const block::RangeLock::Guard guard = co_await commit_lock_.Acquire(kAll, kExclusive);
  std::vector<uint64_t>& table = tables_.refcount_table;
  const uint64_t old_entries = table.size();
  table.resize((table_clusters << bits) / sizeof(uint64_t));
  for (uint64_t i = 0; i < blocks; ++i) {
    table[old_entries + i] = (first + i) << bits;
    tables_.refcounts.InsertZeros((first + i) << bits, geometry.cluster_size());
  }
  const uint64_t end = first + blocks + table_clusters;
  const uint64_t table_offset = (first + blocks) << bits;
  for (uint64_t i = first; i < end; ++i) CountOne(i);
  const absl::Status written = co_await WriteTable(table_offset);
  if (!written.ok()) {
    table.resize(old_entries);
    co_return written;
  }
  next_ = end;
  tables_.NoteEnd(end << bits);
  tables_.SetMetadata(Metadata::kRefcountBlock, first << bits, blocks << bits);
  tables_.SetMetadata(Metadata::kRefcountTable, table_offset, table_clusters << bits);
  tables_.dirty_refcount_table.clear();
  const uint64_t old_offset = tables_.header.refcount_table_offset;
  const uint64_t old_clusters = tables_.header.refcount_table_clusters;
  tables_.header.refcount_table_offset = table_offset;
  tables_.header.refcount_table_clusters = static_cast<uint32_t>(table_clusters);
  CO_RETURN_IF_ERROR(co_await tables_.WriteHeader());
  std::vector<uint64_t> unused;
  for (uint64_t i = 0; i < old_clusters; ++i) unused.push_back((old_offset >> bits) + i);
  co_return co_await ReleaseLocked(unused);
}

Task<absl::Status> Allocator::WriteTable(uint64_t offset) {
  const std::vector<SliceRun> slices =
      tables_.refcounts.TakeDirty([](const SliceCache::Slice&) { return true; });
  absl::Status status = co_await WriteRuns(tables_.file, slices);
  if (!status.ok()) {
    tables_.refcounts.PutBack(slices);
    co_return status;
  }
  tables_.refcounts.Written(slices);
  SliceRun table;
  table.offset = offset;
  table.bytes.resize(tables_.refcount_table.size() * sizeof(uint64_t));
  for (std::size_t i = 0; i < tables_.refcount_table.size(); ++i) {
    StoreBe64(table.bytes.data() + i * sizeof(uint64_t), tables_.refcount_table[i]);
  }
  const Bytes bytes(table.bytes);
  CO_RETURN_IF_ERROR(co_await tables_.file.Write(ByteOffset{offset}, bytes, false));
  co_return co_await tables_.file.Sync();
}

Task<absl::Status> Allocator::Release(const std::vector<uint64_t>& clusters) {
  const block::RangeLock::Guard guard = co_await lock_.Acquire(kAll, kExclusive);
  co_return co_await ReleaseLocked(clusters);
}

Task<absl::Status> Allocator::ReleaseLocked(const std::vector<uint64_t>& clusters) {
  const uint32_t order = tables_.geometry.refcount_order;
  for (const uint64_t cluster : clusters) {
    uint64_t count = 0;
    Place place{};
    if (HasBlock(cluster)) {
      CO_ASSIGN_OR_RETURN(place, co_await Find(cluster));
      count = LoadRefcount(place.slice->bytes.get(), place.index, order);
    }
    if (count == 0) {
      const std::string what = absl::StrCat("cluster ", cluster, " is in use and has refcount 0");
      co_return co_await tables_.MarkCorrupt(what);
    }
    StoreRefcount(place.slice->bytes.get(), place.index, order, count - 1);
    tables_.refcounts.MarkDirty(*place.slice);
    if (count > 1) continue;
    next_ = std::min(next_, cluster);
    tables_.metadata.erase(cluster);
  }
  co_return absl::OkStatus();
}

}  // namespace gabion::qcow2
