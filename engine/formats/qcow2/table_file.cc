#include "engine/formats/qcow2/table_file.h"

#include <algorithm>
#include <cstring>

#include "engine/base/align.h"
#include "engine/base/check.h"
#include "engine/base/status_macros.h"

namespace gabion::qcow2 {
namespace {

std::byte* NewBounce(uint64_t alignment) {
  if (alignment == 1) return nullptr;
  CHECK(IsPowerOfTwo(alignment) && alignment <= TableFile::kPiece);
  void* memory = std::aligned_alloc(alignment, TableFile::kPiece);
  CHECK(memory != nullptr);
  return static_cast<std::byte*>(memory);
}

}  // namespace

TableFile::TableFile(io::File& file)
    : file_(file), alignment_(file.alignment()), bounce_(NewBounce(alignment_)) {}

Task<absl::Status> TableFile::Read(uint64_t offset, MutableBytes dst) {
  const uint64_t end = size();
  const uint64_t inside = offset >= end ? 0 : std::min<uint64_t>(dst.size(), end - offset);
  std::fill(dst.begin() + static_cast<std::ptrdiff_t>(inside), dst.end(), std::byte{0});
  if (bounce_ == nullptr) {
    if (inside == 0) co_return absl::OkStatus();
    const absl::Status status = co_await file_.Read(ByteOffset{offset}, dst.first(inside));
    co_return status;
  }
  for (uint64_t done = 0; done < inside;) {
    const uint64_t begin = RoundDown(offset + done, alignment_);
    const uint64_t skip = offset + done - begin;
    const uint64_t take = std::min<uint64_t>(kPiece - skip, inside - done);
    const MutableBytes buffer(bounce_.get(), RoundUp(skip + take, alignment_));
    CO_RETURN_IF_ERROR(co_await file_.Read(ByteOffset{begin}, buffer));
    std::memcpy(dst.data() + done, buffer.data() + skip, take);
    done += take;
  }
  co_return absl::OkStatus();
}

Task<absl::Status> TableFile::Write(uint64_t offset, Bytes src) {
  if (bounce_ == nullptr) {
    const absl::Status status = co_await file_.Write(ByteOffset{offset}, src, false);
    co_return status;
  }
  for (uint64_t done = 0; done < src.size();) {
    const uint64_t begin = RoundDown(offset + done, alignment_);
    const uint64_t skip = offset + done - begin;
    const uint64_t take = std::min<uint64_t>(kPiece - skip, src.size() - done);
    // The end of the file counts as aligned: it is not moved by what surrounds `src`.
    uint64_t length = RoundUp(skip + take, alignment_);
    if (begin + skip + take <= size()) length = std::min(length, size() - begin);
    const MutableBytes buffer(bounce_.get(), length);
    if (take != buffer.size()) {
      CO_RETURN_IF_ERROR(co_await file_.Read(ByteOffset{begin}, buffer));
    }
    std::memcpy(buffer.data() + skip, src.data() + done, take);
    CO_RETURN_IF_ERROR(co_await file_.Write(ByteOffset{begin}, buffer, false));
    done += take;
  }
  co_return absl::OkStatus();
}

}  // namespace gabion::qcow2
