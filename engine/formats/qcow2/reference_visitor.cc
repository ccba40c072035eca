#include "engine/formats/qcow2/reference_visitor.h"

#include "absl/strings/str_cat.h"
#include "engine/formats/qcow2/layout.h"
#include "engine/formats/qcow2/references.h"

namespace gabion::qcow2 {
namespace {

using Use = RefcountMap::Use;

std::string Entry(std::string_view what, uint64_t entry) {
  return absl::StrCat(std::string(what), ": ", absl::Hex(entry, absl::kZeroPad16));
}

constexpr uint64_t kAllocatedHalf = 0xffffffff;  // of the bitmap of an extended entry

}  // namespace

bool IsMisplacedZero(const Geometry& geometry, uint64_t entry, uint64_t bitmap) {
  if ((entry & kCompressed) != 0) return false;
  if (geometry.InCluster(entry & kOffsetMask) == 0) return false;
  return geometry.extended ? (bitmap & kAllocatedHalf) == 0 : (entry & kZeroFlag) != 0;
}

std::optional<uint64_t> ReferenceVisitor::Guest(const L2Table& table, uint64_t index) const {
  if (table.l1_index == L2Table::kInactive) return std::nullopt;
  return table.l1_index * context_.geometry.l2_coverage() +
         (index << context_.geometry.cluster_bits);
}

bool ReferenceVisitor::VisitActiveL1(uint32_t index, uint64_t& entry) {
  JudgeL1(entry, 1, context_.header.l1_offset + uint64_t{index} * 8,
          index * context_.geometry.l2_coverage());
  return false;
}

void ReferenceVisitor::VisitInactiveL1(uint64_t at, uint64_t entry, uint64_t tables) {
  JudgeL1(entry, tables, at, std::nullopt);
}

void ReferenceVisitor::JudgeL1(uint64_t entry, uint64_t tables, uint64_t at,
                               std::optional<uint64_t> guest) {
  if ((entry & kL1Reserved) != 0) {
    context_.Report(FindingKind::kL1Entry, at, guest,
                    [&] { return Entry("reserved bits in L1 entry", entry); });
  }
  const uint64_t offset = entry & kOffsetMask;
  if (offset == 0 || context_.TableFits(offset)) return;
  if (context_.found != nullptr) context_.found->unfollowed_entries = true;
  if (context_.geometry.InCluster(offset) != 0) {
    context_.Report(FindingKind::kL1Entry, at, guest,
                    [&] { return Entry("L2 table not at a multiple of the cluster size", entry); });
  }
  // Also of one that is not aligned: what it touches must not be given away.
  references_.Refer(map_, offset, context_.geometry.cluster_size(), tables, Use::kL2Table, guest);
}

bool ReferenceVisitor::BeginL2(const L2Table& table) {
  references_.Refer(map_, table.offset, context_.geometry.cluster_size(), table.references,
                    Use::kL2Table, Guest(table, 0));
  expected_ = 0;
  return true;
}

bool ReferenceVisitor::VisitL2(const L2Table& table, uint64_t index, uint64_t& entry,
                               uint64_t& bitmap) {
  const std::optional<uint64_t> guest = Guest(table, index);
  if ((entry & kCompressed) != 0) {
    CountCompressed(table, entry, bitmap, guest);
  } else {
    JudgeBits(entry, bitmap, guest);
    if ((entry & kOffsetMask) != 0) CountPlain(table, entry, guest);
  }
  return false;
}

void ReferenceVisitor::CountCompressed(const L2Table& table, uint64_t entry, uint64_t bitmap,
                                       std::optional<uint64_t> guest) {
  const uint64_t offset = context_.geometry.CompressedOffset(entry);
  if ((entry & kCopied) != 0) {
    if (context_.found != nullptr) ++context_.found->mendable_entries;
    context_.Report(FindingKind::kCopiedFlag, offset, guest,
                    [&] { return Entry("COPIED in the entry of a compressed cluster", entry); });
  }
  if (bitmap != 0) {
    context_.Report(FindingKind::kL2Entry, offset, guest, [&] {
      return Entry("compressed cluster with a bitmap of subclusters", bitmap);
    });
  }
  if (context_.found != nullptr && table.l1_index != L2Table::kInactive) {
    ++context_.found->allocated_clusters;
    ++context_.found->compressed_clusters;
    ++context_.found->fragmented_clusters;  // by nature
  }
  references_.Refer(map_, offset, context_.geometry.CompressedBytes(entry), table.references,
                    Use::kData, guest);
}

void ReferenceVisitor::JudgeBits(uint64_t entry, uint64_t bitmap, std::optional<uint64_t> guest) {
  const Geometry& geometry = context_.geometry;
  const uint64_t offset = entry & kOffsetMask;
  const auto report = [&](std::string_view what, uint64_t value) {
    context_.Report(FindingKind::kL2Entry, offset, guest, [&] { return Entry(what, value); });
  };
  const uint64_t reserved = kL2Reserved | (geometry.extended ? kZeroFlag : 0);
  if ((entry & reserved) != 0) report("reserved bits in L2 entry", entry);
  if (geometry.version < 3 && (entry & kZeroFlag) != 0) report("zero flag in version 2", entry);
  if ((bitmap >> 32 & bitmap) != 0) report("subclusters both allocated and zero", bitmap);
  if (offset == 0 && (bitmap & kAllocatedHalf) != 0) {
    report("allocated subclusters without a cluster", bitmap);
  }
  if (geometry.InCluster(offset) == 0) return;
  report("cluster not at a multiple of the cluster size", entry);
  if (context_.found == nullptr) return;
  if (IsMisplacedZero(geometry, entry, bitmap)) ++context_.found->mendable_entries;
}

void ReferenceVisitor::CountPlain(const L2Table& table, uint64_t entry,
                                  std::optional<uint64_t> guest) {
  const uint64_t offset = entry & kOffsetMask;
  if (context_.found != nullptr && table.l1_index != L2Table::kInactive) {
    ++context_.found->allocated_clusters;
    if (expected_ != 0 && offset != expected_) ++context_.found->fragmented_clusters;
    expected_ = offset + context_.geometry.cluster_size();
  }
  references_.Refer(map_, offset, context_.geometry.cluster_size(), table.references, Use::kData,
                    guest);
}

}  // namespace gabion::qcow2
