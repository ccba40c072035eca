#include "tests/support_io/memory_file.h"

#include <algorithm>
#include <utility>

#include "engine/base/align.h"
#include "engine/base/check.h"
#include "engine/base/status_macros.h"

namespace gabion::test {

std::size_t MemoryFile::count(const Call& call) const {
  const auto found = counts_.find(call);
  return found == counts_.end() ? 0 : found->second;
}

Task<absl::Status> MemoryFile::Begin(Call call) {
  if (ready_ != nullptr) co_await ready_->Yield();
  ++counts_[call];
  const auto found = failures_.find(call);
  if (found == failures_.end()) co_return absl::OkStatus();
  absl::Status status = found->second;
  failures_.erase(found);
  co_return status;
}

Task<absl::Status> MemoryFile::Read(ByteOffset offset, MutableBytes dst) {
  CO_RETURN_IF_ERROR(co_await Begin("read"));
  for (std::size_t i = 0; i < dst.size(); ++i) {
    const uint64_t at = offset.value + i;
    dst[i] = at < bytes_.size() ? bytes_[at] : std::byte{0};
  }
  co_return absl::OkStatus();
}

Task<absl::Status> MemoryFile::Write(ByteOffset offset, Bytes src, bool durable) {
  CHECK(is_writable);
  CO_RETURN_IF_ERROR(co_await Begin("write"));
  const uint64_t end = offset.value + src.size();
  if (end > bytes_.size()) {
    bytes_.resize(end);
    allocated_.resize(end);
  }
  std::copy(src.begin(), src.end(), bytes_.begin() + static_cast<std::ptrdiff_t>(offset.value));
  std::fill_n(allocated_.begin() + static_cast<std::ptrdiff_t>(offset.value), src.size(), true);
  if (!durable) synced_ = false;
  largest_write_ = std::max<uint64_t>(largest_write_, src.size());
  co_return absl::OkStatus();
}

Task<absl::Status> MemoryFile::Zero(ByteRange range, io::ZeroMode mode) {
  CHECK(is_writable);
  CO_RETURN_IF_ERROR(co_await Begin("zero"));
  const bool can = mode == io::ZeroMode::kPunch ? can_punch : can_keep_allocated;
  if (!can) co_return absl::UnimplementedError("fallocate: Operation not supported");
  const ByteRange inside = Intersect(range, Range(0, bytes_.size()));
  const auto begin = static_cast<std::ptrdiff_t>(inside.offset.value);
  std::fill_n(bytes_.begin() + begin, inside.length.value, std::byte{0});
  std::fill_n(allocated_.begin() + begin, inside.length.value,
              mode == io::ZeroMode::kKeepAllocated);
  synced_ = false;
  co_return absl::OkStatus();
}

Task<absl::Status> MemoryFile::Sync() {
  CO_RETURN_IF_ERROR(co_await Begin("sync"));
  synced_ = true;
  co_return absl::OkStatus();
}

Task<absl::Status> MemoryFile::Prefetch(ByteRange) {
  const absl::Status status = co_await Begin("prefetch");
  co_return status;
}

Task<absl::StatusOr<std::vector<io::FileExtent>>> MemoryFile::Map(ByteRange range,
                                                                  std::size_t max_extents) {
  CHECK(!range.empty());
  CHECK(FitsWithin(range, size()));
  CO_RETURN_IF_ERROR(co_await Begin("map"));
  std::vector<io::FileExtent> extents;
  for (uint64_t at = range.offset.value; at < range.end().value; ++at) {
    const bool hole = !allocated_[at];
    if (extents.empty() || extents.back().hole != hole) {
      if (extents.size() == max_extents) break;
      extents.push_back({Range(at, 0), hole});
    }
    ++extents.back().range.length.value;
  }
  co_return extents;
}

Task<absl::Status> MemoryFile::Resize(ByteCount size) {
  CO_RETURN_IF_ERROR(co_await Begin("resize"));
  bytes_.resize(size.value);
  allocated_.resize(size.value);
  synced_ = false;
  co_return absl::OkStatus();
}

Task<absl::Status> MemoryFile::Close() {
  const absl::Status status = co_await Begin("close");
  co_return status;
}

}  // namespace gabion::test
