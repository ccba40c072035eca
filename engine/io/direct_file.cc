#include "engine/io/direct_file.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "engine/base/align.h"
#include "engine/base/check.h"
#include "engine/io/errno_status.h"

namespace gabion::io {
namespace {

constexpr std::size_t kMaxBounce = kMiB;

struct FreeMemory {
  void operator()(std::byte* memory) const { std::free(memory); }
};
using Bounce = std::unique_ptr<std::byte[], FreeMemory>;

Bounce NewBounce(std::size_t alignment, std::size_t size) {
  auto* memory = static_cast<std::byte*>(std::aligned_alloc(alignment, RoundUp(size, alignment)));
  CHECK(memory != nullptr);  // at most 1 MiB
  return Bounce(memory);
}

bool IsAlignedMemory(const std::byte* memory, uint32_t alignment) {
  return IsMultiple(reinterpret_cast<uintptr_t>(memory), alignment);
}

}  // namespace

Task<absl::Status> DirectFile::Read(ByteOffset offset, MutableBytes dst) {
  CHECK(IsMultiple(offset.value, alignment()));
  const ByteRange inside = Intersect(Range(offset.value, dst.size()), Range(0, size().value));
  const std::size_t length = inside.length.value;
  std::size_t done = 0;
  Bounce bounce;
  while (done < length) {
    const std::size_t left = length - done;
    const ByteOffset at{offset.value + done};
    MutableBytes target = dst.subspan(done, RoundDown(left, alignment()));
    const bool bounced = target.empty() || !IsAlignedMemory(target.data(), alignment());
    if (bounced) {
      if (bounce == nullptr) bounce = NewBounce(alignment(), std::min(left, kMaxBounce));
      target = {bounce.get(), std::min<std::size_t>(RoundUp(left, alignment()), kMaxBounce)};
    }
    const int64_t result = co_await calls().Read(fd(), target, at);
    if (result == -EINTR) continue;
    if (result < 0) co_return ErrnoStatus(static_cast<int>(-result), "read");
    const std::size_t got = std::min(static_cast<std::size_t>(result), left);
    if (bounced) std::memcpy(dst.data() + done, bounce.get(), got);
    done += got;
    if (!IsMultiple(got, alignment()) || got == 0) break;  // the end of the file
  }
  std::fill(dst.begin() + static_cast<std::ptrdiff_t>(done), dst.end(), std::byte{0});
  co_return absl::OkStatus();
}

Task<absl::Status> DirectFile::Write(ByteOffset offset, Bytes src, bool durable) {
  CHECK(IsMultiple(offset.value, alignment()));
  const std::size_t body = RoundDown(src.size(), alignment());
  if (body > 0) {
    Task<absl::Status> writing = IsAlignedMemory(src.data(), alignment())
                                     ? WriteFully(fd(), offset, src.first(body), durable)
                                     : WriteBounced(offset, src.first(body), durable);
    const absl::Status status = co_await writing;
    if (!status.ok()) co_return status;
  }
  if (body == src.size()) co_return absl::OkStatus();
  CHECK_GE(offset.value + src.size(), size().value);
  if (!tail_.valid()) co_return ErrnoStatus(EINVAL, "write of a partial block");
  const ByteOffset tail_offset{offset.value + body};
  const absl::Status status =
      co_await WriteFully(tail_.get(), tail_offset, src.subspan(body), durable);
  co_return status;
}

Task<absl::Status> DirectFile::WriteBounced(ByteOffset offset, Bytes src, bool durable) {
  const Bounce bounce = NewBounce(alignment(), std::min(src.size(), kMaxBounce));
  for (std::size_t done = 0; done < src.size();) {
    const Bytes piece = src.subspan(done, std::min(src.size() - done, kMaxBounce));
    std::memcpy(bounce.get(), piece.data(), piece.size());
    const ByteOffset at{offset.value + done};
    const Bytes copy(bounce.get(), piece.size());
    const absl::Status status = co_await WriteFully(fd(), at, copy, durable);
    if (!status.ok()) co_return status;
    done += piece.size();
  }
  co_return absl::OkStatus();
}

}  // namespace gabion::io
