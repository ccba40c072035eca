#include "engine/formats/qcow2/refcount_tables.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/base/align.h"
#include "engine/base/bytes.h"
#include "engine/base/status_macros.h"
#include "engine/formats/qcow2/layout.h"
#include "engine/formats/qcow2/references.h"

namespace gabion::qcow2 {
namespace {

using Use = RefcountMap::Use;

// Refcounts that are compared without a pause: some 100 us.
constexpr uint64_t kMaxStretch = 16384;

}  // namespace

bool RefcountTables::Usable(uint64_t entry) const {
  const uint64_t offset = entry & ~kRefcountTableReserved;
  return offset != 0 && context_.TableFits(offset);
}

Task<absl::Status> RefcountTables::Load() {
  const uint64_t start = context_.header.refcount_table_offset;
  const uint64_t bytes = uint64_t{context_.header.refcount_table_clusters}
                         << context_.geometry.cluster_bits;
  if (bytes > kMaxRefcountTableBytes) {
    co_return absl::FailedPreconditionError("refcount table too large");
  }
  if (!FitsWithin(Range(start, bytes), {context_.file.size()})) {
    if (context_.found != nullptr) context_.found->unusable_structure = true;
    context_.Report(FindingKind::kRefcountStructure, start, std::nullopt,
                    [] { return std::string("the refcount table ends past the end of the file"); });
  }
  std::vector<std::byte> piece;
  for (uint64_t done = 0; done < bytes; done += piece.size()) {
    CO_RETURN_IF_ERROR(co_await context_.Pause());
    piece.resize(std::min<uint64_t>(TableFile::kPiece, bytes - done));
    const absl::Status status = co_await context_.file.Read(start + done, piece);
    if (!status.ok()) {
      context_.ReportUnreadable(start + done, status);
      std::fill(piece.begin(), piece.end(), std::byte{0});
    }
    for (std::size_t at = 0; at < piece.size(); at += 8) {
      const uint64_t entry = LoadBe64(&piece[at]);
      if (entry == 0) continue;
      JudgeEntry(start + done + at, entry);
      entries_.resize((done + at) / 8);  // the end of the table is often empty
      entries_.push_back(entry);
    }
  }
  NoteWindows();
  co_return absl::OkStatus();
}

void RefcountTables::JudgeEntry(uint64_t place, uint64_t entry) {
  const uint64_t offset = entry & ~kRefcountTableReserved;
  std::string_view wrong;
  if ((entry & kRefcountTableReserved) != 0) {
    wrong = "has reserved bits set";
  } else if (context_.geometry.InCluster(offset) != 0) {
    wrong = "is not a multiple of the cluster size";
  } else if (!Usable(entry)) {
    wrong = "is past the end of the file";
  } else {
    return;
  }
  if (context_.found != nullptr) context_.found->unusable_structure = true;
  context_.Report(FindingKind::kRefcountStructure, place, std::nullopt, [&] {
    return absl::StrCat("refcount table entry ", absl::Hex(entry), " ", std::string(wrong));
  });
}

void RefcountTables::NoteWindows() {
  const uint32_t bits = context_.geometry.refcount_block_bits();
  for (uint64_t index = 0; index < entries_.size(); ++index) {
    const uint64_t first = index << bits;
    if (entries_[index] == 0 || first > context_.file_clusters) continue;
    const uint64_t last = std::min(first + (uint64_t{1} << bits) - 1, context_.file_clusters);
    const uint64_t size = context_.options.window_clusters;
    for (uint64_t window = first / size; window <= last / size; ++window) {
      windows_ |= uint64_t{1} << window;
    }
  }
}

Task<absl::Status> RefcountTables::AddReferences(References& references, RefcountMap& map) const {
  const uint64_t size = context_.geometry.cluster_size();
  const uint64_t bytes = uint64_t{context_.header.refcount_table_clusters} * size;
  const uint64_t start = context_.header.refcount_table_offset;
  if (FitsWithin(Range(start, bytes), {context_.file.size()})) {
    references.Refer(map, start, bytes, 1, Use::kSingle, std::nullopt);
  }
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    if (i % kMaxStretch == 0) CO_RETURN_IF_ERROR(co_await context_.Pause());
    if (!Usable(entries_[i])) continue;
    references.Refer(map, entries_[i] & ~kRefcountTableReserved, size, 1, Use::kSingle,
                     std::nullopt);
  }
  co_return absl::OkStatus();
}

uint64_t RefcountTables::StretchClusters() const {
  const uint32_t order = context_.geometry.refcount_order;
  const uint64_t in_piece = (uint64_t{TableFile::kPiece} * 8) >> order;
  const uint64_t in_block = uint64_t{1} << context_.geometry.refcount_block_bits();
  return std::min({kMaxStretch, in_piece, in_block});
}

RefcountTables::Stretch RefcountTables::StretchAt(uint64_t cluster, uint64_t end) const {
  Stretch stretch;
  stretch.first = cluster;
  const uint64_t size = StretchClusters();
  stretch.count = std::min(end, RoundDown(cluster, size) + size) - cluster;
  const uint32_t bits = context_.geometry.refcount_block_bits();
  const uint64_t block = cluster >> bits;
  if (block >= entries_.size() || entries_[block] == 0) return stretch;
  if (!Usable(entries_[block])) {
    stretch.broken = true;
    return stretch;
  }
  const uint64_t index = cluster & ((uint64_t{1} << bits) - 1);
  stretch.offset = (entries_[block] & ~kRefcountTableReserved) +
                   ((index << context_.geometry.refcount_order) >> 3);
  return stretch;
}

// Windows start at multiples of 64 clusters, so that a stretch starts at a whole byte.
Task<absl::Status> RefcountTables::ReadStretch(const Stretch& stretch,
                                               std::vector<std::byte>& bytes) {
  bytes.assign(((stretch.count << context_.geometry.refcount_order) + 7) >> 3, std::byte{0});
  CO_RETURN_IF_ERROR(co_await context_.Pause());
  if (stretch.offset == 0) co_return absl::OkStatus();
  const absl::Status status = co_await context_.file.Read(stretch.offset, bytes);
  co_return status;
}

Task<absl::Status> RefcountTables::Compare(RefcountMap& map) {
  CO_RETURN_IF_ERROR(co_await JudgeStructure(map));
  std::vector<std::byte> bytes;
  for (uint64_t cluster = map.first(); cluster < map.end();) {
    const Stretch stretch = StretchAt(cluster, map.end());
    if (stretch.offset == 0 && map.NothingIn(cluster, stretch.count)) {
      cluster += stretch.count;
      continue;
    }
    const absl::Status status = co_await ReadStretch(stretch, bytes);
    if (absl::IsCancelled(status)) co_return status;
    cluster += stretch.count;
    if (!status.ok()) {
      context_.ReportUnreadable(stretch.offset, status);
      continue;
    }
    const uint64_t low_before = context_.found->low_refcounts;
    for (uint64_t i = 0; i < stretch.count; ++i) {
      const uint64_t at = stretch.first + i;
      // Where the block is unknown, which has been reported, nothing is low or leaked.
      const uint64_t stored = stretch.broken
                                  ? std::min(map.Count(at), context_.geometry.max_refcount())
                                  : LoadRefcount(bytes.data(), i, context_.geometry.refcount_order);
      Judge(at, stored, map);
    }
    const bool low = context_.found->low_refcounts > low_before;
    if (low && stretch.offset == 0) context_.found->unusable_structure = true;
  }
  co_return absl::OkStatus();
}

void RefcountTables::Judge(uint64_t cluster, uint64_t stored, RefcountMap& map) {
  const uint64_t references = map.Count(cluster);
  if ((stored | references) == 0) return;
  // There is no such cluster, unless a compressed one reaches into it.
  if (cluster >= context_.file_clusters && references == 0) return;
  Inspection& found = *context_.found;
  found.highest_cluster = std::max(found.highest_cluster, cluster);
  const uint64_t counted = std::min(references, context_.geometry.max_refcount());
  const uint64_t offset = cluster << context_.geometry.cluster_bits;
  const auto report = [&](FindingKind kind, std::string_view what) {
    context_.Report(kind, offset, std::nullopt, [&] {
      return absl::StrCat("cluster ", cluster, std::string(what), ": refcount ", stored,
                          ", references ", references);
    });
  };
  if (counted < references) report(FindingKind::kRefcountOverflow, " has too many references");
  if (stored < counted) ++found.low_refcounts;
  if (map.Overlaps(cluster)) {
    NoteShared(cluster, map);
    report(FindingKind::kOverlap, " of metadata is used for something else, too");
  } else if (stored < counted) {
    report(FindingKind::kRefcountTooLow, "");
  }
  if (stored > counted) report(FindingKind::kLeak, " is leaked");
  map.SetCount(cluster, stored);
}

void RefcountTables::NoteShared(uint64_t cluster, const RefcountMap& map) {
  Inspection& found = *context_.found;
  const uint64_t offset = cluster << context_.geometry.cluster_bits;
  const uint64_t size = context_.geometry.cluster_size();
  const ByteRange l1 = Range(context_.header.l1_offset, uint64_t{context_.header.l1_size} * 8);
  if (Overlaps(Range(offset, size), l1)) found.active_l1_shared = true;
  if (!map.UsedAs(cluster, Use::kL2Table)) return;
  if (found.shared_l2.size() < kMaxSharedTables) {
    found.shared_l2.push_back(offset);
  } else {
    found.too_many_shared = true;
  }
}

// Whether the table and its blocks have their clusters for themselves. What is wrong is reported
// cluster by cluster.
Task<absl::Status> RefcountTables::JudgeStructure(const RefcountMap& map) {
  bool unusable = false;
  const uint64_t first = context_.geometry.ClusterOf(context_.header.refcount_table_offset);
  for (uint64_t i = 0; i < context_.header.refcount_table_clusters; ++i) {
    unusable = unusable || (map.Holds(first + i) && map.Count(first + i) > 1);
  }
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    if (i % kMaxStretch == 0) CO_RETURN_IF_ERROR(co_await context_.Pause());
    if (!Usable(entries_[i])) continue;
    const uint64_t cluster = context_.geometry.ClusterOf(entries_[i] & ~kRefcountTableReserved);
    unusable = unusable || (map.Holds(cluster) && map.Count(cluster) > 1);
  }
  if (unusable) context_.found->unusable_structure = true;
  co_return absl::OkStatus();
}

Task<absl::Status> RefcountTables::ReadInto(RefcountMap& map) {
  std::vector<std::byte> bytes;
  for (uint64_t cluster = map.first(); cluster < map.end();) {
    const Stretch stretch = StretchAt(cluster, map.end());
    if (stretch.offset == 0) {
      cluster += stretch.count;  // nothing is stored, and nothing was counted since Reset()
      continue;
    }
    CO_RETURN_IF_ERROR(co_await ReadStretch(stretch, bytes));
    for (uint64_t i = 0; i < stretch.count; ++i) {
      map.SetCount(stretch.first + i,
                   LoadRefcount(bytes.data(), i, context_.geometry.refcount_order));
    }
    cluster += stretch.count;
  }
  co_return absl::OkStatus();
}

Task<absl::Status> RefcountTables::Store(const RefcountMap& map, bool raise, bool lower) {
  const uint32_t order = context_.geometry.refcount_order;
  std::vector<std::byte> bytes;
  for (uint64_t cluster = map.first(); cluster < map.end();) {
    const Stretch stretch = StretchAt(cluster, map.end());
    cluster += stretch.count;
    if (stretch.offset == 0) continue;
    CO_RETURN_IF_ERROR(co_await ReadStretch(stretch, bytes));
    bool changed = false;
    for (uint64_t i = 0; i < stretch.count; ++i) {
      const uint64_t stored = LoadRefcount(bytes.data(), i, order);
      const uint64_t references = map.Count(stretch.first + i);
      const uint64_t counted = std::min(references, context_.geometry.max_refcount());
      if (stored == counted || !(stored < counted ? raise : lower)) continue;
      StoreRefcount(bytes.data(), i, order, counted);
      changed = true;
    }
    if (changed) CO_RETURN_IF_ERROR(co_await context_.file.Write(stretch.offset, bytes));
  }
  co_return absl::OkStatus();
}

}  // namespace gabion::qcow2
