#include "engine/filters/cow.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <optional>
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

constexpr uint8_t kBelow = CowState::kBelow;
constexpr uint8_t kZeroed = CowState::kZeroed;
constexpr uint8_t kWritten = CowState::kWritten;

constexpr uint64_t kStagingBudget = 16 * kMiB;
constexpr std::size_t kPage = 4096;

// (1) A block that is kWritten is whole in the scratch node, and stays kWritten while anybody holds
//     a shared lock on it.
// (2) So whoever writes whole blocks, or parts of kWritten ones, needs a shared lock; all other
//     changes need an exclusive one.
// (3) A block changes its state when the scratch node has its content, not before. Reads need no
//     lock: what they find was there at some moment of theirs, for each byte.
class Cow final : public Filter {
 public:
  Cow(block::Node& child, Environment environment, const std::string& entry_id,
      block::Node& scratch, CowState& state)
      : Filter(child, Derive(child.limits(), scratch.limits(), state.block_size, entry_id),
               std::move(environment)),
        entry_id_(entry_id),
        scratch_(scratch),
        state_(state),
        block_(state.block_size),
        lock_(this->environment().ready),
        staging_(this->environment().ready, kStagingBudget, kPage) {
    CHECK(scratch.limits().writable || state.kept);
    for (const Limits* const limits : {&child.limits(), &scratch.limits()}) {
      CHECK_EQ(limits->alignment.value, 1u);
      CHECK_EQ(limits->memory_alignment, 1u);
    }
  }

  // What is kept here comes from nowhere below.
  std::optional<ByteRange> OriginOf(ByteRange& range) const override {
    const Piece piece = FirstPiece(range);
    range = piece.range;
    return piece.state == kBelow ? std::optional<ByteRange>(range) : std::nullopt;
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
    limits.writable = scratch.writable;
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
  Task<absl::Status> DoWrite(ByteRange range, Bytes src, WriteOptions options) override {
    return WriteLocked(range, src, InScratch(options));
  }
  Task<absl::Status> DoZero(ByteRange range, ZeroOptions options) override;
  Task<absl::Status> DoDiscard(ByteRange range) override;
  Task<absl::Status> DoFlush() override {
    if (!state_.kept) return absl::OkStatus();
    return scratch_.Flush();
  }
  Task<absl::Status> DoCache(ByteRange range) override { return child().Cache(range); }
  Task<absl::StatusOr<ExtentList>> DoBlockStatus(ByteRange range, std::size_t max_extents) override;
  Task<absl::Status> DoResize(ByteCount) override {
    return Blame(absl::UnimplementedError("the scratch space of a disk cannot change its size"));
  }
  Task<absl::Status> DoClose() override { return absl::OkStatus(); }

  // Only what is kept can be durable.
  WriteOptions InScratch(WriteOptions options) const {
    return {.durable = options.durable && state_.kept};
  }
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
    if (state_.blocks.size() < CowState::kMostRuns) return absl::OkStatus();
    return Blame(absl::ResourceExhaustedError(
        "the scratch space is in too many pieces; larger blocks would make fewer"));
  }

  Task<absl::Status> ReadPiece(Piece piece, MutableBytes dst);
  Task<absl::Status> ReadPieces(ByteRange range, MutableBytes dst);
  Task<absl::Status> WriteLocked(ByteRange range, Bytes src, WriteOptions options);
  Task<absl::Status> WriteExclusive(ByteRange range, Bytes src, WriteOptions options);
  Task<absl::Status> WritePart(ByteRange part, Bytes src, WriteOptions options);
  Task<absl::Status> WriteWhole(ByteRange range, Bytes src, WriteOptions options);
  Task<absl::Status> ZeroPart(ByteRange part, ZeroOptions options);
  Task<absl::Status> ZeroWhole(ByteRange range, ZeroOptions options);
  // Writes whole blocks, or parts of kWritten ones.
  Task<absl::Status> WriteScratch(ByteRange range, Bytes src, WriteOptions options);
  // A change of the scratch node has failed half-way. What it keeps of it all the same will be
  // there next time, so that it has to be seen now, too.
  Task<void> SeeWhatIsKept(ByteRange range);
  // Fills `staged` with what the block `whole`, which is not kWritten, reads as.
  Task<absl::Status> Complete(ByteRange whole, MutableBytes staged);

  const std::string entry_id_;
  block::Node& scratch_;
  CowState& state_;
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

Task<absl::Status> Cow::WriteLocked(ByteRange range, Bytes src, WriteOptions options) {
  const ByteRange outer = BlocksAround(range);
  const Split split = SplitBlocks(range);
  const bool in_parts = !split.head.empty() || !split.tail.empty();
  CO_RETURN_IF_ERROR(CheckRoom());
  {
    const RangeLock::Guard guard = co_await lock_.Acquire(outer, RangeLockMode::kShared);
    const bool parts_are_written = (split.head.empty() || StateAt(split.head) == kWritten) &&
                                   (split.tail.empty() || StateAt(split.tail) == kWritten);
    if (!in_parts || parts_are_written) {
      absl::Status status = co_await WriteWhole(range, src, options);
      co_return status;
    }
  }
  const RangeLock::Guard guard = co_await lock_.Acquire(outer, RangeLockMode::kExclusive);
  absl::Status status = co_await WriteExclusive(range, src, options);
  co_return status;
}

Task<absl::Status> Cow::WriteExclusive(ByteRange range, Bytes src, WriteOptions options) {
  const Split split = SplitBlocks(range);
  const Bytes head = src.first(split.head.length.value);
  const Bytes middle = src.subspan(head.size(), split.middle.length.value);
  const Bytes tail = src.last(split.tail.length.value);
  if (!head.empty()) CO_RETURN_IF_ERROR(co_await WritePart(split.head, head, options));
  if (!middle.empty()) CO_RETURN_IF_ERROR(co_await WriteWhole(split.middle, middle, options));
  if (!tail.empty()) CO_RETURN_IF_ERROR(co_await WritePart(split.tail, tail, options));
  co_return absl::OkStatus();
}

Task<absl::Status> Cow::WriteWhole(ByteRange range, Bytes src, WriteOptions options) {
  CO_RETURN_IF_ERROR(co_await WriteScratch(range, src, options));
  state_.bytes_written += src.size();
  co_return absl::OkStatus();
}

Task<absl::Status> Cow::WriteScratch(ByteRange range, Bytes src, WriteOptions options) {
  const absl::Status written = co_await scratch_.Write(range, src, options);
  if (written.ok()) {
    Mark(range, kWritten);
  } else {
    co_await SeeWhatIsKept(range);
  }
  co_return written;
}

Task<void> Cow::SeeWhatIsKept(ByteRange range) {
  if (!state_.kept) co_return;
  const ByteRange blocks = BlocksAround(range);
  const absl::Status learned = co_await LearnBlocks(scratch_, blocks, state_, environment().ready);
  if (learned.ok()) co_return;
  environment().logger.Log(
      LogLevel::kError, "filters",
      absl::StrCat(environment().where, ": what is kept of ", range.length.value, " bytes at ",
                   range.offset.value, " is not known: ", learned.message()));
}

Task<absl::Status> Cow::Complete(ByteRange whole, MutableBytes staged) {
  if (StateAt(whole) == kBelow) return child().Read(whole, staged);
  std::memset(staged.data(), 0, staged.size());
  return absl::OkStatus();
}

Task<absl::Status> Cow::WritePart(ByteRange part, Bytes src, WriteOptions options) {
  if (StateAt(part) == kWritten) {
    absl::Status status = co_await WriteWhole(part, src, options);
    co_return status;
  }
  const ByteRange whole = BlocksAround(part);
  StagingPool::Buffer buffer = co_await staging_.Take(whole.length.value);
  const MutableBytes staged = buffer.bytes();
  CO_RETURN_IF_ERROR(co_await Complete(whole, staged));
  std::memcpy(staged.data() + (part.offset - whole.offset).value, src.data(), src.size());
  CO_RETURN_IF_ERROR(co_await WriteScratch(whole, staged, options));
  state_.bytes_written += src.size();
  co_return absl::OkStatus();
}

Task<absl::Status> Cow::DoZero(ByteRange range, ZeroOptions options) {
  CO_RETURN_IF_ERROR(CheckRoom());
  options.durable = options.durable && state_.kept;
  options.own = state_.kept;
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
  if (!options.may_unmap || state_.kept) {
    const absl::Status zeroed = co_await scratch_.Zero(range, options);
    if (zeroed.ok()) {
      Mark(range, kWritten);
    } else {
      co_await SeeWhatIsKept(range);
    }
    co_return zeroed;
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
    options.fast_only = false;
    absl::Status status = co_await scratch_.Zero(part, options);
    co_return status;
  }
  const ByteRange whole = BlocksAround(part);
  StagingPool::Buffer buffer = co_await staging_.Take(whole.length.value);
  const MutableBytes staged = buffer.bytes();
  CO_RETURN_IF_ERROR(co_await Complete(whole, staged));
  std::memset(staged.data() + (part.offset - whole.offset).value, 0, part.length.value);
  if (options.may_unmap && block::IsZero(staged)) {
    absl::Status status = co_await ZeroWhole(whole, options);
    co_return status;
  }
  const WriteOptions durability{.durable = options.durable};
  absl::Status status = co_await WriteScratch(whole, staged, durability);
  co_return status;
}

// Parts of blocks stay as they are.
Task<absl::Status> Cow::DoDiscard(ByteRange range) {
  const ByteRange whole = SplitBlocks(range).middle;
  if (whole.empty()) co_return absl::OkStatus();
  CO_RETURN_IF_ERROR(CheckRoom());
  const RangeLock::Guard guard = co_await lock_.Acquire(whole, RangeLockMode::kExclusive);
  const ZeroOptions options{.own = state_.kept};
  absl::Status status = co_await ZeroWhole(whole, options);
  co_return status;
}

Task<absl::StatusOr<ExtentList>> Cow::DoBlockStatus(ByteRange range, std::size_t max_extents) {
  ExtentList list;
  while (!range.empty() && list.size() < max_extents) {
    const Piece piece = FirstPiece(range);
    ByteOffset end = piece.range.end();
    if (piece.state == kBelow || state_.kept) {
      block::Node& holder = piece.state == kBelow ? child() : scratch_;
      CO_ASSIGN_OR_RETURN(const ExtentList told,
                          co_await holder.BlockStatus(piece.range, max_extents - list.size()));
      end = told.back().range.end();
      for (Extent extent : told) {
        extent.apart = extent.apart || piece.state != kBelow;
        // Places in another file than those of the chain.
        if (piece.state != kBelow) extent.host_offset = block::kNoHostOffset;
        block::AppendExtent(list, extent);
      }
      if (end < piece.range.end()) break;
    } else {
      const ExtentKind kind = piece.state == kWritten ? ExtentKind::kData : ExtentKind::kZero;
      block::AppendExtent(list,
                          Extent{.range = piece.range, .kind = kind, .layer = 1, .apart = true});
    }
    range = ByteRange{end, range.end() - end};
  }
  co_return list;
}

}  // namespace

std::unique_ptr<Filter> NewCow(block::Node& child, Environment environment,
                               const std::string& entry_id, block::Node& scratch, CowState& state) {
  return std::make_unique<Cow>(child, std::move(environment), entry_id, scratch, state);
}

}  // namespace gabion::filters
