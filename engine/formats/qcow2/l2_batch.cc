#include "engine/formats/qcow2/l2_batch.h"

#include <algorithm>

namespace gabion::qcow2 {
namespace {

void Join(L2Table& into, const L2Table& other) {
  const uint64_t sum = uint64_t{into.references} + other.references;
  into.references =
      static_cast<uint32_t>(std::min<uint64_t>(sum, std::numeric_limits<uint32_t>::max()));
  into.l1_index = std::min(into.l1_index, other.l1_index);
}

}  // namespace

void L2Batch::Add(const L2Table& table) {
  if (table.offset < from_ || table.offset >= end_) return;
  if (!tables_.empty() && tables_.back().offset == table.offset) {
    Join(tables_.back(), table);
    return;
  }
  tables_.push_back(table);
  if (tables_.size() < 2 * capacity_) return;
  Merge();
  if (tables_.size() <= capacity_) return;
  end_ = tables_[capacity_].offset;
  tables_.resize(capacity_);
}

void L2Batch::Merge() {
  std::sort(tables_.begin(), tables_.end(),
            [](const L2Table& a, const L2Table& b) { return a.offset < b.offset; });
  std::size_t kept = 0;
  for (const L2Table& table : tables_) {
    if (kept > 0 && tables_[kept - 1].offset == table.offset) {
      Join(tables_[kept - 1], table);
    } else {
      tables_[kept++] = table;
    }
  }
  tables_.resize(kept);
}

const std::vector<L2Table>& L2Batch::Finish() {
  Merge();
  if (tables_.size() > capacity_) {
    end_ = tables_[capacity_].offset;
    tables_.resize(capacity_);
  }
  return tables_;
}

}  // namespace gabion::qcow2
