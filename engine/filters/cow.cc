#include "engine/filters/cow.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/align.h"
#include "engine/base/check.h"
#include "engine/base/status_macros.h"
#include "engine/block/range_lock.h"
#include "engine/block/run_map.h"
#include "engine/block/staging.h"
#include "engine/block/zeros.h"

namespace gabion::filters {
namespace {

using block::Extent;
using block::ExtentKind;
using block::ExtentList;
using block::Limits;
using block::RangeLock;
using block::RangeLockMode;
using block::RunMap;
using block::StagingPool;
using block::WriteOptions;
using block::ZeroOptions;

// States of blocks.
constexpr uint8_t kBelow = 0;  // the child's
constexpr uint8_t kZeroed = 1;
constexpr uint8_t kWritten = 2;  // in the scratch node

constexpr uint64_t kSmallestBlock = 512;
constexpr uint64_t kLargestBlock = kMiB;
constexpr uint64_t kStagingBudget = 16 * kMiB;
constexpr std::size_t kPage = 4096;
// About 300 MiB of memory.
constexpr std::size_t kMostRuns = std::size_t{4} * 1024 * 1024;

class State final : public CowState {
 public:
  explicit State(const CowOptions& options) : block_size(options.block_size) {
    CHECK(IsPowerOfTwo(block_size));
    CHECK_GE(block_size, kSmallestBlock);
    CHECK_LE(block_size, kLargestBlock);
  }

  const uint64_t block_size;
  RunMap blocks;
  uint64_t bytes_written = 0;
};

// (1) A block that is kWritten is whole in the scratch node, and stays kWritten while anybody holds
//     a shared lock on it.
// (2) So whoever writes whole blocks, or parts of kWritten ones, needs a shared lock; all other
//     changes need an exclusive one.
// (3) A block changes its state when the scratch node has its content, not before. Reads need no
//     lock: what they find was there at some moment of theirs, for each byte.
class Cow final : public Filter {
 public:
  Cow(block::Node& child, Environment environment, const std::string& entry_id,
      block::Node& scratch, State& state)
      : Filter(child, Derive(child.limits(), scratch.limits(), state.block_size, entry_id),
               std::move(environment)),
        entry_id_(entry_id),
        scratch_(scratch),
        state_(state),
        block_(state.block_size),
        lock_(this->environment().ready),
        staging_(this->environment().ready, kStagingBudget, kPage) {
    CHECK(scratch.limits().writable);
    for (const Limits* const limits : {&child.limits(), &scratch.limits()}) {
      CHECK_EQ(limits->alignment.value, 1u);
      CHECK_EQ(limits->memory_alignment, 1u);
    }
  }

  Statistics GetStatistics() const override {
    Statistics statistics;
    statistics.counters = {
        {"bytes_written", state_.bytes_written},
        {"blocks", state_.blocks.CountUnits(kWritten) + state_.blocks.CountUnits(kZeroed)}};
    return statistics;
  }

 private:
  // A piece of a request whose blocks have one state.
  struct Piece {
    ByteRange range;
    uint8_t state;
  };
  // Parts of one or two blocks, and whole ones between them. The disk's last block may be short.
  struct Split {
    ByteRange head;
    ByteRange middle;
    ByteRange tail;
  };

  static Limits Derive(const Limits& child, const Limits& scratch, uint64_t block_size,
                       const std::string& entry_id) {
    Limits limits = child;
    limits.size = std::min(child.size, scratch.size);
    limits.writable = true;
    limits.fast_zero = true;
    const block::FeatureSet own =
        Bit(block::Feature::kTrim) | Bit(block::Feature::kZero) | Bit(block::Feature::kFastZero);
    limits.hidden &= static_cast<block::FeatureSet>(~own);
    if (limits.preferred.value < block_size) {
      limits.preferred.value = block_size;
      limits.preferred_from = entry_id;
    }
    return limits;
  }
  Limits DeriveLimits(const Limits& child) const override {
    return Derive(child, scratch_.limits(), block_, entry_id_);
  }

  Task<absl::Status> DoRead(ByteRange range, MutableBytes dst) override {
    const Piece first = FirstPiece(range);
    if (first.range.length == range.length) return ReadPiece(first, dst);
    return ReadPieces(range, dst);
  }
  Task<absl::Status> DoWrite(ByteRange range, Bytes src, WriteOptions) override {
    return WriteLocked(range, src);
  }
  Task<absl::Status> DoZero(ByteRange range, ZeroOptions options) override;
  Task<absl::Status> DoDiscard(ByteRange range) override;
  Task<absl::Status> DoFlush() override { return absl::OkStatus(); }
  Task<absl::Status> DoCache(ByteRange range) override { return child().Cache(range); }
  Task<absl::StatusOr<ExtentList>> DoBlockStatus(ByteRange range, std::size_t max_extents) override;
  Task<absl::Status> DoResize(ByteCount) override {
    return Blame(absl::UnimplementedError("the scratch space of a disk cannot change its size"));
  }
  Task<absl::Status> DoClose() override { return absl::OkStatus(); }

  Piece FirstPiece(ByteRange range) const {
    const RunMap::Run run = state_.blocks.Find(range.offset.value / block_);
    const uint64_t end = range.end().value;
    const uint64_t run_end = run.end > end / block_ ? end : run.end * block_;
    return {Range(range.offset.value, run_end - range.offset.value), run.state};
  }
  uint8_t StateAt(ByteRange part) const {
    return state_.blocks.Find(part.offset.value / block_).state;
  }
  ByteRange BlocksAround(ByteRange range) const {
    return AlignOutward(range, ByteCount{block_}, limits().size);
  }
  // Puts the blocks that `range` touches into `state`.
  void Mark(ByteRange range, uint8_t state) {
    state_.blocks.Set(range.offset.value / block_, (range.end().value + block_ - 1) / block_,
                      state);
  }
  Split SplitBlocks(ByteRange range) const;
  // An error if the map would take too much memory.
  absl::Status CheckRoom() const {
    if (state_.blocks.size() < kMostRuns) return absl::OkStatus();
    return Blame(absl::ResourceExhaustedError(
        "the scratch space is in too many pieces; larger blocks would make fewer"));
  }

  Task<absl::Status> ReadPiece(Piece piece, MutableBytes dst);
  Task<absl::Status> ReadPieces(ByteRange range, MutableBytes dst);
  Task<absl::Status> WriteLocked(ByteRange range, Bytes src);
  Task<absl::Status> WriteExclusive(ByteRange range, Bytes src);
  Task<absl::Status> WritePart(ByteRange part, Bytes src);
  Task<absl::Status> WriteWhole(ByteRange range, Bytes src);
  Task<absl::Status> ZeroPart(ByteRange part, ZeroOptions options);
  Task<absl::Status> ZeroWhole(ByteRange range, ZeroOptions options);
  // Fills `staged` with what the block `whole`, which is not kWritten, reads as.
  Task<absl::Status> Complete(ByteRange whole, MutableBytes staged);

  const std::string entry_id_;
  block::Node& scratch_;
  State& state_;
  const uint64_t block_;
  RangeLock lock_;
  StagingPool staging_;
};

Cow::Split Cow::SplitBlocks(ByteRange range) const {
  const ByteRange outer = BlocksAround(range);
  uint64_t begin = range.offset.value;
  uint64_t end = range.end().value;
  Split split;
  if (outer.offset != range.offset) {
    const uint64_t head_end = std::min(end, outer.offset.value + block_);
    split.head = Range(begin, head_end - begin);
    begin = head_end;
  }
  if (begin < end && outer.end() != range.end()) {
    const uint64_t tail_begin = RoundDown(end, block_);
    split.tail = Range(tail_begin, end - tail_begin);
    end = tail_begin;
  }
  split.middle = Range(begin, end - begin);
  return split;
}

Task<absl::Status> Cow::ReadPiece(Piece piece, MutableBytes dst) {
  if (piece.state == kWritten) return scratch_.Read(piece.range, dst);
  if (piece.state == kBelow) return child().Read(piece.range, dst);
  std::memset(dst.data(), 0, dst.size());
  return absl::OkStatus();
}

Task<absl::Status> Cow::ReadPieces(ByteRange range, MutableBytes dst) {
  while (!range.empty()) {
    const Piece piece = FirstPiece(range);
    CO_RETURN_IF_ERROR(co_await ReadPiece(piece, dst.first(piece.range.length.value)));
    dst = dst.subspan(piece.range.length.value);
    range = ByteRange{piece.range.end(), range.end() - piece.range.end()};
  }
  co_return absl::OkStatus();
}

Task<absl::Status> Cow::WriteLocked(ByteRange range, Bytes src) {
  const ByteRange outer = BlocksAround(range);
  const Split split = SplitBlocks(range);
  const bool in_parts = !split.head.empty() || !split.tail.empty();
  CO_RETURN_IF_ERROR(CheckRoom());
  {
    const RangeLock::Guard guard = co_await lock_.Acquire(outer, RangeLockMode::kShared);
    const bool parts_are_written = (split.head.empty() || StateAt(split.head) == kWritten) &&
                                   (split.tail.empty() || StateAt(split.tail) == kWritten);
    if (!in_parts || parts_are_written) {
      absl::Status status = co_await WriteWhole(range, src);
      co_return status;
    }
  }
  const RangeLock::Guard guard = co_await lock_.Acquire(outer, RangeLockMode::kExclusive);
  absl::Status status = co_await WriteExclusive(range, src);
  co_return status;
}

Task<absl::Status> Cow::WriteExclusive(ByteRange range, Bytes src) {
  const Split split = SplitBlocks(range);
  const Bytes head = src.first(split.head.length.value);
  const Bytes middle = src.subspan(head.size(), split.middle.length.value);
  const Bytes tail = src.last(split.tail.length.value);
  if (!head.empty()) CO_RETURN_IF_ERROR(co_await WritePart(split.head, head));
  if (!middle.empty()) CO_RETURN_IF_ERROR(co_await WriteWhole(split.middle, middle));
  if (!tail.empty()) CO_RETURN_IF_ERROR(co_await WritePart(split.tail, tail));
  co_return absl::OkStatus();
}

Task<absl::Status> Cow::WriteWhole(ByteRange range, Bytes src) {
  CO_RETURN_IF_ERROR(co_await scratch_.Write(range, src, WriteOptions{}));
  Mark(range, kWritten);
  state_.bytes_written += src.size();
  co_return absl::OkStatus();
}

Task<absl::Status> Cow::Complete(ByteRange whole, MutableBytes staged) {
  if (StateAt(whole) == kBelow) return child().Read(whole, staged);
  std::memset(staged.data(), 0, staged.size());
  return absl::OkStatus();
}

Task<absl::Status> Cow::WritePart(ByteRange part, Bytes src) {
  if (StateAt(part) == kWritten) {
    absl::Status status = co_await WriteWhole(part, src);
    co_return status;
  }
  const ByteRange whole = BlocksAround(part);
  StagingPool::Buffer buffer = co_await staging_.Take(whole.length.value);
  const MutableBytes staged = buffer.bytes();
  CO_RETURN_IF_ERROR(co_await Complete(whole, staged));
  std::memcpy(staged.data() + (part.offset - whole.offset).value, src.data(), src.size());
  CO_RETURN_IF_ERROR(co_await scratch_.Write(whole, staged, WriteOptions{}));
  Mark(whole, kWritten);
  state_.bytes_written += src.size();
  co_return absl::OkStatus();
}

Task<absl::Status> Cow::DoZero(ByteRange range, ZeroOptions options) {
  CO_RETURN_IF_ERROR(CheckRoom());
  const ByteRange outer = BlocksAround(range);
  const Split split = SplitBlocks(range);
  const RangeLock::Guard guard = co_await lock_.Acquire(outer, RangeLockMode::kExclusive);
  for (const ByteRange& part : {split.head, split.tail}) {
    const bool is_done = part.empty() || (StateAt(part) == kZeroed && options.may_unmap);
    if (options.fast_only && !is_done) {
      co_return absl::UnimplementedError("zeroing part of a block means to write it");
    }
  }
  // The whole blocks first: should they not be fast, nothing has changed yet.
  if (!split.middle.empty()) CO_RETURN_IF_ERROR(co_await ZeroWhole(split.middle, options));
  if (!split.head.empty()) CO_RETURN_IF_ERROR(co_await ZeroPart(split.head, options));
  if (!split.tail.empty()) CO_RETURN_IF_ERROR(co_await ZeroPart(split.tail, options));
  co_return absl::OkStatus();
}

Task<absl::Status> Cow::ZeroWhole(ByteRange range, ZeroOptions options) {
  if (!options.may_unmap) {
    options.durable = false;
    CO_RETURN_IF_ERROR(co_await scratch_.Zero(range, options));
    Mark(range, kWritten);
    co_return absl::OkStatus();
  }
  std::vector<ByteRange> written;
  for (ByteRange rest = range; !rest.empty();) {
    const Piece piece = FirstPiece(rest);
    if (piece.state == kWritten) written.push_back(piece.range);
    rest = ByteRange{piece.range.end(), rest.end() - piece.range.end()};
  }
  Mark(range, kZeroed);
  for (const ByteRange& unused : written) {
    // Should that fail, the space is lost until somebody writes there.
    const absl::Status freed = co_await scratch_.Discard(unused);
    freed.IgnoreError();
  }
  co_return absl::OkStatus();
}

Task<absl::Status> Cow::ZeroPart(ByteRange part, ZeroOptions options) {
  const uint8_t state = StateAt(part);
  if (state == kZeroed && options.may_unmap) co_return absl::OkStatus();
  if (state == kWritten) {
    const ZeroOptions within{.may_unmap = options.may_unmap};
    absl::Status status = co_await scratch_.Zero(part, within);
    co_return status;
  }
  const ByteRange whole = BlocksAround(part);
  StagingPool::Buffer buffer = co_await staging_.Take(whole.length.value);
  const MutableBytes staged = buffer.bytes();
  CO_RETURN_IF_ERROR(co_await Complete(whole, staged));
  std::memset(staged.data() + (part.offset - whole.offset).value, 0, part.length.value);
  if (options.may_unmap && block::IsZero(staged)) {
    Mark(whole, kZeroed);
    co_return absl::OkStatus();
  }
  CO_RETURN_IF_ERROR(co_await scratch_.Write(whole, staged, WriteOptions{}));
  Mark(whole, kWritten);
  co_return absl::OkStatus();
}

// Parts of blocks stay as they are.
Task<absl::Status> Cow::DoDiscard(ByteRange range) {
  const ByteRange whole = SplitBlocks(range).middle;
  if (whole.empty()) co_return absl::OkStatus();
  CO_RETURN_IF_ERROR(CheckRoom());
  const RangeLock::Guard guard = co_await lock_.Acquire(whole, RangeLockMode::kExclusive);
  absl::Status status = co_await ZeroWhole(whole, ZeroOptions{});
  co_return status;
}

Task<absl::StatusOr<ExtentList>> Cow::DoBlockStatus(ByteRange range, std::size_t max_extents) {
  ExtentList list;
  while (!range.empty() && list.size() < max_extents) {
    const Piece piece = FirstPiece(range);
    ByteOffset end = piece.range.end();
    if (piece.state == kBelow) {
      CO_ASSIGN_OR_RETURN(const ExtentList below,
                          co_await child().BlockStatus(piece.range, max_extents - list.size()));
      end = below.back().range.end();
      for (const Extent& extent : below) block::AppendExtent(list, extent);
      if (end < piece.range.end()) break;
    } else {
      const ExtentKind kind = piece.state == kWritten ? ExtentKind::kData : ExtentKind::kZero;
      block::AppendExtent(list, Extent{.range = piece.range, .kind = kind, .layer = 1});
    }
    range = ByteRange{end, range.end() - end};
  }
  co_return list;
}

}  // namespace

std::unique_ptr<CowState> NewCowState(const CowOptions& options) {
  return std::make_unique<State>(options);
}

std::unique_ptr<Filter> NewCow(block::Node& child, Environment environment,
                               const std::string& entry_id, block::Node& scratch, CowState& state,
                               const CowOptions& options) {
  State& known = static_cast<State&>(state);
  CHECK_EQ(known.block_size, uint64_t{options.block_size});
  return std::make_unique<Cow>(child, std::move(environment), entry_id, scratch, known);
}

}  // namespace gabion::filters
