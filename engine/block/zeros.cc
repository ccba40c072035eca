#include "engine/block/zeros.h"

#include <algorithm>

#include "engine/base/align.h"
#include "engine/base/check.h"

namespace gabion::block {
namespace internal {

// Compares the bytes with themselves, shifted: if the first 16 are zero and each byte equals the
// one 16 further on, all are zero. memcmp does that with the widest loads that the machine has.
bool IsZeroBehindStart(Bytes bytes) {
  const std::size_t head = std::min<std::size_t>(bytes.size(), 16);
  for (std::size_t i = 0; i < head; ++i) {
    if (bytes[i] != std::byte{0}) return false;
  }
  return bytes.size() <= 16 || std::memcmp(bytes.data(), bytes.data() + 16, bytes.size() - 16) == 0;
}

}  // namespace internal

ZeroRunScanner::ZeroRunScanner(Bytes window, ByteOffset window_start, std::size_t block,
                               std::size_t shortest, std::size_t shortest_at_edge)
    : window_(window),
      skew_(window_start.value & (block - 1)),
      block_(block),
      stride_(shortest / block),
      shortest_at_edge_(shortest_at_edge),
      blocks_((skew_ + window.size() + block - 1) / block) {
  CHECK(IsPowerOfTwo(block));
  CHECK_GE(stride_, 1u);
  CHECK_EQ(shortest % block, 0u);
  if (window.empty()) step_ = Step::kDone;
}

std::size_t ZeroRunScanner::BlockBegin(std::size_t index) const {
  if (index == 0) return 0;
  return std::min(window_.size(), index * block_ - skew_);
}

bool ZeroRunScanner::BlockIsZero(std::size_t index) const {
  const std::size_t begin = BlockBegin(index);
  return IsZero(window_.subspan(begin, BlockBegin(index + 1) - begin));
}

bool ZeroRunScanner::FindEdges(ZeroRun& run) {
  std::size_t leading = 0;
  while (leading < blocks_ && BlockIsZero(leading)) ++leading;
  inside_end_ = blocks_;
  while (inside_end_ > leading && BlockIsZero(inside_end_ - 1)) --inside_end_;
  known_data_ = leading;
  run = {0, BlockBegin(leading)};
  return leading > 0 && run.end >= shortest_at_edge_;
}

bool ZeroRunScanner::NextInside(ZeroRun& run) {
  // Of any `stride_` consecutive blocks behind a known one, one is looked at.
  for (std::size_t at = known_data_ + stride_; at < inside_end_; at = known_data_ + stride_) {
    if (!BlockIsZero(at)) {
      known_data_ = at;
      continue;
    }
    std::size_t first = at;
    while (first - 1 > known_data_ && BlockIsZero(first - 1)) --first;
    std::size_t end = at + 1;
    while (end < inside_end_ && BlockIsZero(end)) ++end;
    known_data_ = end;  // data, or the zeros at the end, which inside_end_ excludes
    if (end - first >= stride_) {
      run = {BlockBegin(first), BlockBegin(end)};
      return true;
    }
  }
  return false;
}

bool ZeroRunScanner::Next(ZeroRun& run) {
  if (step_ == Step::kStart) {
    step_ = Step::kInside;
    if (FindEdges(run)) return true;
  }
  if (step_ == Step::kInside) {
    if (NextInside(run)) return true;
    step_ = Step::kEnd;
  }
  if (step_ == Step::kEnd) {
    step_ = Step::kDone;
    run = {BlockBegin(inside_end_), window_.size()};
    return inside_end_ < blocks_ && run.end - run.begin >= shortest_at_edge_;
  }
  return false;
}

}  // namespace gabion::block
