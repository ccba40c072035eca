#include "engine/formats/qcow2/table_walk.h"

#include <algorithm>
#include <limits>

#include "engine/base/bytes.h"
#include "engine/base/status_macros.h"
#include "engine/formats/qcow2/layout.h"

namespace gabion::qcow2 {

Task<absl::Status> TableWalk::Walk(TableVisitor& visitor, WalkScope scope) {
  uint64_t from = 0;
  uint64_t shown = 0;  // clusters of the file that the progress has passed
  TableVisitor* l1_visitor = &visitor;
  while (from != std::numeric_limits<uint64_t>::max()) {
    L2Batch batch(from, context_.options.batch_tables);
    CO_RETURN_IF_ERROR(co_await CollectActive(batch, l1_visitor));
    if (scope == WalkScope::kAll) {
      CO_RETURN_IF_ERROR(co_await CollectInactive(batch, l1_visitor));
    }
    l1_visitor = nullptr;  // later batches collect only
    for (const L2Table& table : batch.Finish()) {
      const uint64_t cluster = context_.geometry.ClusterOf(table.offset);
      context_.Advance(cluster - shown);
      shown = cluster;
      if (!visitor.BeginL2(table)) continue;
      CO_RETURN_IF_ERROR(co_await WalkL2(table, visitor));
    }
    from = batch.end();
  }
  context_.Advance(context_.file_clusters - std::min(shown, context_.file_clusters));
  co_return absl::OkStatus();
}

void TableWalk::Collect(uint64_t entry, uint64_t tables, uint32_t l1_index, L2Batch& batch) {
  const uint64_t offset = entry & kOffsetMask;
  if (offset == 0 || !context_.TableFits(offset)) return;
  const uint64_t most = std::numeric_limits<uint32_t>::max();
  batch.Add({offset, static_cast<uint32_t>(std::min(tables, most)), l1_index});
}

Task<absl::Status> TableWalk::CollectActive(L2Batch& batch, TableVisitor* visitor) {
  const uint64_t start = context_.header.l1_offset;
  const uint64_t bytes = uint64_t{context_.header.l1_size} * 8;
  const uint64_t file_size = context_.file.size();
  const uint64_t inside =
      start >= file_size ? 0 : std::min(bytes, file_size - start) & ~uint64_t{7};
  std::vector<std::byte> piece(std::min<uint64_t>(TableFile::kPiece, inside));
  for (uint64_t done = 0; done < inside; done += piece.size()) {
    piece.resize(std::min<uint64_t>(TableFile::kPiece, inside - done));
    CO_RETURN_IF_ERROR(co_await context_.Pause());
    const absl::Status status = co_await context_.file.Read(start + done, piece);
    if (!status.ok()) {
      if (visitor != nullptr) context_.ReportUnreadable(start + done, status);
      continue;
    }
    bool changed = false;
    for (std::size_t at = 0; at < piece.size(); at += 8) {
      uint64_t entry = LoadBe64(&piece[at]);
      if (entry == 0) continue;
      const auto index = static_cast<uint32_t>((done + at) / 8);
      if (visitor != nullptr && visitor->VisitActiveL1(index, entry)) {
        StoreBe64(&piece[at], entry);
        changed = true;
      }
      Collect(entry, 1, index, batch);
    }
    if (changed) CO_RETURN_IF_ERROR(co_await context_.file.Write(start + done, piece));
  }
  co_return absl::OkStatus();
}

Task<absl::Status> TableWalk::CollectInactive(L2Batch& batch, TableVisitor* visitor) {
  const std::vector<SweepRun> runs = inactive_.Runs();
  std::vector<std::byte> piece;
  for (const SweepRun& run : runs) {
    for (uint64_t done = 0; done < run.length; done += piece.size()) {
      piece.resize(std::min<uint64_t>(TableFile::kPiece, run.length - done));
      CO_RETURN_IF_ERROR(co_await context_.Pause());
      const absl::Status status = co_await context_.file.Read(run.offset + done, piece);
      if (!status.ok()) {
        if (visitor != nullptr) context_.ReportUnreadable(run.offset + done, status);
        continue;
      }
      for (std::size_t at = 0; at < piece.size(); at += 8) {
        const uint64_t entry = LoadBe64(&piece[at]);
        if (entry == 0) continue;
        if (visitor != nullptr) visitor->VisitInactiveL1(run.offset + done + at, entry, run.tables);
        Collect(entry, run.tables, L2Table::kInactive, batch);
      }
    }
  }
  co_return absl::OkStatus();
}

Task<absl::Status> TableWalk::WalkL2(const L2Table& table, TableVisitor& visitor) {
  const uint64_t size = context_.geometry.cluster_size();
  std::vector<std::byte> piece(std::min<uint64_t>(TableFile::kPiece, size));
  const uint64_t entries = piece.size() >> context_.geometry.l2_entry_bits();
  for (uint64_t done = 0; done < size; done += piece.size()) {
    CO_RETURN_IF_ERROR(co_await context_.Pause());
    const uint64_t at = table.offset + done;
    const absl::Status status = co_await context_.file.Read(at, piece);
    if (!status.ok()) {
      context_.ReportUnreadable(at, status);
      continue;
    }
    const bool changed = ShowL2(table, (done / piece.size()) * entries, piece, visitor);
    if (changed) CO_RETURN_IF_ERROR(co_await context_.file.Write(at, piece));
  }
  co_return absl::OkStatus();
}

bool TableWalk::ShowL2(const L2Table& table, uint64_t first, MutableBytes piece,
                       TableVisitor& visitor) {
  const bool extended = context_.geometry.extended;
  const std::size_t entry_bytes = std::size_t{1} << context_.geometry.l2_entry_bits();
  bool changed = false;
  for (std::size_t at = 0; at < piece.size(); at += entry_bytes) {
    uint64_t entry = LoadBe64(&piece[at]);
    uint64_t bitmap = extended ? LoadBe64(&piece[at + 8]) : 0;
    if (entry == 0 && bitmap == 0) continue;
    if (!visitor.VisitL2(table, first + at / entry_bytes, entry, bitmap)) continue;
    StoreBe64(&piece[at], entry);
    if (extended) StoreBe64(&piece[at + 8], bitmap);
    changed = true;
  }
  return changed;
}

}  // namespace gabion::qcow2
