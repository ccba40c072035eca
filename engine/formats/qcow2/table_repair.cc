#include "engine/formats/qcow2/table_repair.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/formats/qcow2/layout.h"
#include "engine/formats/qcow2/reference_visitor.h"

namespace gabion::qcow2 {

bool TableRepair::BeginL2(const L2Table& table) {
  if (known_ == nullptr) return true;
  const auto& shared = known_->shared_l2;
  return !known_->too_many_shared &&
         !std::binary_search(shared.begin(), shared.end(), table.offset);
}

bool CopiedFlags::VisitActiveL1(uint32_t index, uint64_t& entry) {
  const uint64_t offset = entry & kOffsetMask;
  if (offset != 0 && !context_.TableFits(offset)) return false;
  const bool wrong = Judge(offset, index * context_.geometry.l2_coverage(), entry);
  return wrong && may_write_l1();
}

bool CopiedFlags::VisitL2(const L2Table& table, uint64_t index, uint64_t& entry, uint64_t&) {
  const uint64_t offset = entry & kOffsetMask;
  // Where there is no cluster the flag means nothing.
  if ((entry & kCompressed) != 0 || offset == 0 || !context_.TableFits(offset)) return false;
  const uint64_t guest =
      table.l1_index * context_.geometry.l2_coverage() + (index << context_.geometry.cluster_bits);
  return Judge(offset, guest, entry) && may_write_l2();
}

// True if the flag was wrong; `entry` has the right one then.
bool CopiedFlags::Judge(uint64_t offset, uint64_t guest, uint64_t& entry) {
  const uint64_t cluster = context_.geometry.ClusterOf(offset);
  if (!map_.Holds(cluster)) return false;
  const uint64_t refcount = map_.Count(cluster);
  const bool copied = (entry & kCopied) != 0;
  const bool single = offset != 0 && refcount == 1;
  if (copied == single) return false;
  if (context_.found != nullptr) ++context_.found->wrong_copied_flags;
  context_.Report(FindingKind::kCopiedFlag, offset, guest, [&] {
    return absl::StrCat("COPIED is ", copied ? "set" : "clear", " in entry ",
                        absl::Hex(entry, absl::kZeroPad16), " and the refcount is ", refcount);
  });
  entry ^= kCopied;
  return true;
}

bool EntryMender::VisitL2(const L2Table&, uint64_t, uint64_t& entry, uint64_t& bitmap) {
  if ((entry & kCompressed) != 0) {
    if ((entry & kCopied) == 0) return false;
    entry &= ~kCopied;
    return true;
  }
  if (!IsMisplacedZero(context_.geometry, entry, bitmap)) return false;
  entry &= ~(kOffsetMask | kCopied);
  return true;
}

}  // namespace gabion::qcow2
