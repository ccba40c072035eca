#include "engine/formats/qcow2/byte_cursor.h"

#include <algorithm>

#include "engine/base/check.h"
#include "engine/base/status_macros.h"

namespace gabion::qcow2 {

Task<absl::Status> ByteCursor::Take(std::size_t length) {
  CHECK_LE(length, kMaxPart);
  if (at_ > end_ || length > end_ - at_) co_return absl::OutOfRangeError("the table ends early");
  const bool inside = at_ >= buffer_at_ && at_ + length <= buffer_at_ + buffer_.size();
  if (!inside) {
    buffer_.resize(std::min<uint64_t>(2 * kMaxPart, end_ - at_));
    buffer_at_ = at_;
    const absl::Status status = co_await file_.Read(at_, buffer_);
    if (!status.ok()) {
      buffer_.clear();
      co_return status;
    }
  }
  taken_ = Bytes(buffer_).subspan(at_ - buffer_at_, length);
  at_ += length;
  co_return absl::OkStatus();
}

void ByteCursor::AlignTo8(uint64_t start) {
  const uint64_t more = (8 - (at_ - start) % 8) % 8;
  at_ += std::min(more, end_ - std::min(at_, end_));
}

}  // namespace gabion::qcow2
