#include "engine/formats/qcow2/refcount_rebuild.h"

#include <algorithm>

#include "engine/base/bytes.h"
#include "engine/base/check.h"
#include "engine/base/status_macros.h"
#include "engine/formats/qcow2/header_repair.h"
#include "engine/formats/qcow2/layout.h"

namespace gabion::qcow2 {
namespace {

constexpr uint64_t kMaxTableEntries = kMaxRefcountTableBytes / 8;

absl::Status TooLarge() {
  return absl::ResourceExhaustedError("the file is too long for a new refcount table");
}

}  // namespace

uint64_t RefcountRebuild::windows() const {
  return context_.file_clusters / context_.options.window_clusters + 1;
}

uint64_t RefcountRebuild::PlaceOf(uint64_t block) const {
  CHECK(places_[block] != 0);
  return places_[block];
}

Task<absl::Status> RefcountRebuild::Run() {
  CO_RETURN_IF_ERROR(co_await FindBlocks());
  CO_RETURN_IF_ERROR(PlanPlaces());
  CO_RETURN_IF_ERROR(co_await WriteBlocks());         // (1)
  CO_RETURN_IF_ERROR(co_await CountOwnClusters());    // (1)
  CO_RETURN_IF_ERROR(co_await WriteTable());          // (1)
  CO_RETURN_IF_ERROR(co_await context_.file.Sync());  // (2)
  CO_RETURN_IF_ERROR(co_await SwitchHeader());        // (3)
  CO_RETURN_IF_ERROR(co_await context_.file.Sync());  // (4)
  context_.Resized();
  co_return absl::OkStatus();
}

// Without what the old table and blocks take: they are given up.
Task<absl::Status> RefcountRebuild::CountWindow(uint64_t window) {
  if (counted_window_ == window) co_return absl::OkStatus();
  const uint64_t size = context_.options.window_clusters;
  map_.Reset(window * size, size);
  const uint64_t errors = context_.read_errors;
  CO_RETURN_IF_ERROR(co_await references_.Count(map_, nullptr));
  // What it refers to would seem free.
  if (context_.read_errors > errors) co_return absl::DataLossError("a table cannot be read");
  counted_window_ = window;
  co_return absl::OkStatus();
}

Task<absl::Status> RefcountRebuild::FindBlocks() {
  const uint32_t bits = context_.geometry.refcount_block_bits();
  const uint64_t blocks = (context_.file_clusters >> bits) + 1;
  if (blocks > kMaxTableEntries) co_return TooLarge();
  needed_.assign(blocks, false);
  for (uint64_t window = 0; window < windows(); ++window) {
    if ((references_.windows() >> window & 1) == 0) continue;
    CO_RETURN_IF_ERROR(co_await CountWindow(window));
    uint64_t untold = 0;
    for (uint64_t cluster = map_.first(); cluster < map_.end(); ++cluster) {
      if (++untold == TableFile::kPiece) {
        CO_RETURN_IF_ERROR(co_await context_.Pause());
        untold = 0;
      }
      if ((cluster >> bits) >= blocks) break;
      if (map_.Count(cluster) > 0) needed_[cluster >> bits] = true;
    }
  }
  co_return absl::OkStatus();
}

// The new blocks and table need refcounts themselves, perhaps in further blocks.
absl::Status RefcountRebuild::PlanPlaces() {
  const Geometry& geometry = context_.geometry;
  const uint32_t bits = geometry.refcount_block_bits();
  // Behind all that may be referred to: the file's last cluster may be an unfinished one.
  first_cluster_ = context_.file_clusters + 1;
  uint64_t last_entry = 0;
  for (;;) {
    blocks_ = static_cast<uint64_t>(std::count(needed_.begin(), needed_.end(), true));
    last_entry = needed_.size() - 1;
    table_clusters_ = geometry.Clusters((last_entry + 1) * 8);
    const uint64_t last = first_cluster_ + new_clusters() - 1;
    bool grew = false;
    for (uint64_t block = first_cluster_ >> bits; block <= last >> bits; ++block) {
      if (block >= kMaxTableEntries) return TooLarge();
      if (block >= needed_.size()) needed_.resize(block + 1, false);
      if (needed_[block]) continue;
      needed_[block] = true;
      grew = true;
    }
    if (!grew) break;
  }
  if (table_clusters_ << geometry.cluster_bits > kMaxRefcountTableBytes) return TooLarge();
  const uint64_t end = first_cluster_ + new_clusters();
  if (end / context_.options.window_clusters >= kMaxCheckWindows) return TooLarge();
  // Compressed clusters may begin in the cluster behind the file's last one.
  if ((end + 1) << geometry.cluster_bits > past_end_) {
    return absl::FailedPreconditionError(
        "new refcounts would be where an entry refers to, past the end of the file");
  }
  places_.assign(needed_.size(), 0);
  uint64_t next = first_cluster_;
  for (uint64_t block = 0; block < needed_.size(); ++block) {
    if (needed_[block]) places_[block] = next++ << geometry.cluster_bits;
  }
  return absl::OkStatus();
}

Task<absl::Status> RefcountRebuild::WriteBlocks() {
  const uint32_t bits = context_.geometry.refcount_block_bits();
  for (uint64_t window = 0; window < windows(); ++window) {
    if ((references_.windows() >> window & 1) == 0) continue;
    CO_RETURN_IF_ERROR(co_await CountWindow(window));
    const uint64_t end = std::min<uint64_t>(map_.end() - 1, context_.file_clusters);
    for (uint64_t block = map_.first() >> bits; block <= end >> bits; ++block) {
      if (!needed_[block]) continue;
      CO_RETURN_IF_ERROR(co_await WriteBlock(block, PlaceOf(block)));
    }
  }
  co_return absl::OkStatus();
}

// What the window holds of it; the rest of a new cluster reads as zeros until it is written.
Task<absl::Status> RefcountRebuild::WriteBlock(uint64_t block, uint64_t place) {
  const uint32_t bits = context_.geometry.refcount_block_bits();
  const uint32_t order = context_.geometry.refcount_order;
  const uint64_t start = block << bits;
  const uint64_t from = std::max(start, map_.first());
  const uint64_t to = std::min(start + (uint64_t{1} << bits), map_.end());
  const uint64_t most = std::min<uint64_t>(uint64_t{TableFile::kPiece} * 8 >> order, 16384);
  std::vector<std::byte> bytes;
  for (uint64_t cluster = from; cluster < to;) {
    const uint64_t count = std::min(most, to - cluster);
    CO_RETURN_IF_ERROR(co_await context_.Pause());
    bytes.assign(((count << order) + 7) >> 3, std::byte{0});
    for (uint64_t i = 0; i < count; ++i) {
      const uint64_t references = map_.Count(cluster + i);
      if (references == 0) continue;
      StoreRefcount(bytes.data(), i, order, std::min(references, context_.geometry.max_refcount()));
    }
    const uint64_t at = place + (((cluster - start) << order) >> 3);
    CO_RETURN_IF_ERROR(co_await context_.file.Write(at, bytes));
    cluster += count;
  }
  co_return absl::OkStatus();
}

Task<absl::Status> RefcountRebuild::CountOwnClusters() {
  const uint32_t bits = context_.geometry.refcount_block_bits();
  const uint32_t order = context_.geometry.refcount_order;
  std::vector<std::byte> bytes;
  // Eight at a time, so that they are whole bytes.
  const uint64_t end = first_cluster_ + new_clusters();
  for (uint64_t eight = first_cluster_ & ~uint64_t{7}; eight < end; eight += 8) {
    const uint64_t index = eight & ((uint64_t{1} << bits) - 1);
    const uint64_t at = PlaceOf(eight >> bits) + ((index << order) >> 3);
    bytes.assign(std::size_t{1} << order, std::byte{0});
    CO_RETURN_IF_ERROR(co_await context_.Pause());
    CO_RETURN_IF_ERROR(co_await context_.file.Read(at, bytes));
    for (uint64_t i = 0; i < 8; ++i) {
      if (eight + i >= first_cluster_ && eight + i < end) StoreRefcount(bytes.data(), i, order, 1);
    }
    CO_RETURN_IF_ERROR(co_await context_.file.Write(at, bytes));
  }
  co_return absl::OkStatus();
}

Task<absl::Status> RefcountRebuild::WriteTable() {
  const uint64_t bytes = table_clusters_ << context_.geometry.cluster_bits;
  std::vector<std::byte> piece;
  for (uint64_t done = 0; done < bytes; done += piece.size()) {
    piece.resize(std::min<uint64_t>(TableFile::kPiece, bytes - done));
    for (std::size_t at = 0; at < piece.size(); at += 8) {
      const uint64_t block = (done + at) / 8;
      StoreBe64(&piece[at], block < places_.size() ? places_[block] : 0);
    }
    CO_RETURN_IF_ERROR(co_await context_.Pause());
    CO_RETURN_IF_ERROR(co_await context_.file.Write(table_offset() + done, piece));
  }
  co_return absl::OkStatus();
}

Task<absl::Status> RefcountRebuild::SwitchHeader() {
  context_.header.refcount_table_offset = table_offset();
  context_.header.refcount_table_clusters = static_cast<uint32_t>(table_clusters_);
  const absl::Status status = co_await WriteCheckedFields(context_.file, context_.header);
  co_return status;
}

}  // namespace gabion::qcow2
