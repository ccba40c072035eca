// Changing the size of a qcow2 image.
#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/bytes.h"
#include "engine/base/reason.h"
#include "engine/base/status_macros.h"
#include "engine/formats/qcow2/disk.h"

namespace gabion::qcow2 {

Task<absl::Status> Disk::DoResize(ByteCount size) {
  CO_RETURN_IF_ERROR(CheckWritable());
  if (tables_.header.snapshot_count > 0 && size < limits().size) {
    co_return WithReason(
        absl::InvalidArgumentError("an image with internal snapshots does not shrink"),
        {"FIELD_INVALID", {{"field", "virtual_size_bytes"}}});
  }
  const uint64_t old_size = limits().size.value;
  if (size.value == old_size) co_return absl::OkStatus();
  absl::Status status;
  if (size.value > old_size) {
    status = co_await Grow(size.value);
  } else {
    status = co_await Shrink(size.value);
  }
  if (!status.ok()) mutable_limits().size.value = old_size;
  co_return status;
}

// The L1 table comes first and the size last, so that a crash leaves the old size.
Task<absl::Status> Disk::Grow(uint64_t size) {
  const uint64_t old_size = limits().size.value;
  CO_RETURN_IF_ERROR(co_await GrowL1(size));
  mutable_limits().size.value = size;
  CO_RETURN_IF_ERROR(co_await ZeroBehind(old_size, size));
  CO_RETURN_IF_ERROR(co_await commit_.Sync());
  tables_.header.size = size;
  co_return co_await tables_.WriteHeader();
}

// What the last cluster holds behind the old end, and what the backing image has there, must not
// come to light.
Task<absl::Status> Disk::ZeroBehind(uint64_t old_size, uint64_t size) {
  const uint64_t cluster_end = RoundUp(old_size, tables_.geometry.cluster_size());
  const uint64_t backing_end =
      options_.backing == nullptr ? 0 : options_.backing->limits().size.value;
  const uint64_t end = std::min(size, std::max(cluster_end, backing_end));
  if (end <= old_size) co_return absl::OkStatus();
  const uint64_t edge_end = std::min(end, cluster_end);
  const ByteRange edge = Range(old_size, edge_end - old_size);
  if (!edge.empty()) {
    CO_ASSIGN_OR_RETURN(const bool is_zero, co_await ReadsZero(edge));
    if (!is_zero) CO_RETURN_IF_ERROR(co_await WriteZeros(edge));
  }
  if (end <= edge_end) co_return absl::OkStatus();
  co_return co_await ZeroRange(Range(edge_end, end - edge_end), {});
}

Task<absl::Status> Disk::GrowL1(uint64_t size) {
  const Geometry& geometry = tables_.geometry;
  const uint64_t entries = geometry.L1Entries(size);
  if (entries * sizeof(uint64_t) > kMaxL1Bytes || size > kMaxVirtualSize) {
    co_return absl::InvalidArgumentError(absl::StrCat("with clusters of ", geometry.cluster_size(),
                                                      " bytes the image cannot have ", size,
                                                      " bytes; a larger cluster size allows more"));
  }
  if (entries <= tables_.l1.size()) co_return absl::OkStatus();
  const uint64_t clusters = geometry.Clusters(entries * sizeof(uint64_t));
  CO_ASSIGN_OR_RETURN(const uint64_t offset, co_await allocator_.AllocateTogether(clusters));
  tables_.SetMetadata(Metadata::kL1, offset, clusters << geometry.cluster_bits);
  CO_RETURN_IF_ERROR(co_await commit_.Sync());  // W1
  // Requests go on meanwhile. What they change in the table waits for the next commit, so the new
  // table begins as the one that the file has.
  const block::RangeLock::Guard guard =
      co_await commit_lock_.Acquire(Range(0, 1), block::RangeLockMode::kExclusive);
  SliceRun table{offset, std::vector<std::byte>(clusters << geometry.cluster_bits)};
  for (std::size_t i = 0; i < tables_.l1.size(); ++i) {
    const auto dirty = tables_.dirty_l1.find(i);
    const uint64_t entry = dirty == tables_.dirty_l1.end() ? tables_.l1[i] : dirty->second;
    StoreBe64(table.bytes.data() + i * sizeof(uint64_t), entry);
  }
  const uint64_t old_offset = tables_.header.l1_offset;
  const uint64_t old_clusters = geometry.Clusters(tables_.l1.size() * sizeof(uint64_t));
  const Bytes bytes(table.bytes);
  CO_RETURN_IF_ERROR(co_await file_->Write(ByteOffset{offset}, bytes, false));
  CO_RETURN_IF_ERROR(co_await file_->Sync());
  tables_.header.l1_offset = offset;
  tables_.header.l1_size = static_cast<uint32_t>(entries);
  CO_RETURN_IF_ERROR(co_await tables_.WriteHeader());
  tables_.l1.resize(entries);
  if (old_clusters > 0) reclaimer_.Add(old_offset, old_clusters);
  co_return absl::OkStatus();
}

// The tail is given up first and the size changes next; what a crash leaves is a larger image whose
// tail is empty.
Task<absl::Status> Disk::Shrink(uint64_t size) {
  const uint64_t old_size = limits().size.value;
  const uint64_t cluster_end = std::min(RoundUp(size, tables_.geometry.cluster_size()), old_size);
  const ByteRange edge = Range(size, cluster_end - size);
  CO_ASSIGN_OR_RETURN(const bool is_zero, co_await ReadsZero(edge));
  if (!is_zero) CO_RETURN_IF_ERROR(co_await WriteZeros(edge));
  const ByteRange beyond = Range(cluster_end, old_size - cluster_end);
  CO_RETURN_IF_ERROR(co_await ZeroTables(beyond, ZeroHow::kRemove));
  CO_RETURN_IF_ERROR(co_await commit_.Sync());
  tables_.header.size = size;
  CO_RETURN_IF_ERROR(co_await tables_.WriteHeader());
  mutable_limits().size.value = size;
  co_return absl::OkStatus();
}

}  // namespace gabion::qcow2
