#include "engine/filters/caching/store.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "engine/base/status_macros.h"

namespace gabion::filters::caching {
namespace {

using block::SlotTable;
using block::StagingPool;
using block::WriteOptions;
using block::ZeroOptions;
using Pin = SlotTable::Pin;

constexpr uint64_t kStagingBudget = 16 * kMiB;
constexpr std::size_t kPage = 4096;

// Cuts `piece`, with which it begins, off `range`.
void Advance(ByteRange& range, ByteRange piece) {
  range = ByteRange{piece.end(), range.end() - piece.end()};
}

}  // namespace

Content::Content(runtime::ReadyQueue& ready, uint32_t block_size_in_bytes, SlotTable::Slot slots)
    : block_size(block_size_in_bytes),
      table(slots),
      lock(ready),
      staging(ready, kStagingBudget, kPage) {}

ByteRange Store::MissingPart(ByteRange range) const {
  ByteRange part = FirstPart(range);
  while (part.end() < range.end() && table_.Peek(part.end().value / block_) == SlotTable::kNoSlot) {
    const ByteRange next = BytesOf(part.end().value / block_);
    part.length = std::min(next.end(), range.end()) - part.offset;
  }
  return part;
}

bool Store::HoldsDirty(ByteRange range) const {
  const uint64_t end = (range.end().value + block_ - 1) / block_;
  return table_.NextDirty(BlockOf(range)).begin < end;
}

void Store::DropClean(ByteRange range) {
  for (const uint64_t block : BlocksHere(range)) {
    if (!table_.IsDirty(block)) table_.Drop(table_.Peek(block));
  }
}

std::vector<uint64_t> Store::BlocksHere(ByteRange range) const {
  return table_.BlocksWithin(BlockOf(range), (range.end().value + block_ - 1) / block_);
}

Task<absl::Status> Store::Read(ByteRange range, MutableBytes dst, bool keep) {
  while (!range.empty()) {
    const Slot slot = table_.Find(BlockOf(range));
    const bool is_here = slot != SlotTable::kNoSlot;
    const ByteRange piece = is_here ? FirstPart(range) : MissingPart(range);
    const MutableBytes bytes = dst.first(piece.length.value);
    if (is_here) {
      ++content_.hits;
      CO_RETURN_IF_ERROR(co_await ReadHit(slot, piece, bytes));
    } else {
      content_.misses += (BlocksAround(piece).length.value + block_ - 1) / block_;
      if (keep) {
        CO_RETURN_IF_ERROR(co_await ReadMiss(piece, bytes));
      } else {
        CO_RETURN_IF_ERROR(co_await child_.Read(piece, bytes));
      }
    }
    dst = dst.subspan(bytes.size());
    Advance(range, piece);
  }
  co_return absl::OkStatus();
}

Task<absl::Status> Store::ReadHit(Slot slot, ByteRange piece, MutableBytes dst) {
  const Pin pin(table_, slot);
  absl::Status status = co_await ReadSlot(slot, piece, dst);
  const uint64_t block = BlockOf(piece);
  if (status.ok() || table_.IsDirty(block)) co_return status;
  if (table_.Peek(block) == slot) table_.Drop(slot);
  status = co_await child_.Read(piece, dst);
  co_return status;
}

Task<absl::Status> Store::ReadMiss(ByteRange run, MutableBytes dst) {
  while (!run.empty()) {
    ByteRange piece = FirstPart(run);
    if (IsWhole(piece)) {
      const bool to_end = run.end().value == child_.limits().size.value;
      const uint64_t end = to_end ? run.end().value : RoundDown(run.end().value, block_);
      piece.length.value = end - piece.offset.value;
      const MutableBytes bytes = dst.first(piece.length.value);
      CO_RETURN_IF_ERROR(co_await child_.Read(piece, bytes));
      co_await KeepAll(piece, bytes);
    } else {
      CO_RETURN_IF_ERROR(co_await ReadPart(piece, dst.first(piece.length.value)));
    }
    dst = dst.subspan(piece.length.value);
    Advance(run, piece);
  }
  co_return absl::OkStatus();
}

// Reads the whole block for the sake of the cache; should that fail, only what was asked for.
Task<absl::Status> Store::ReadPart(ByteRange part, MutableBytes dst) {
  const ByteRange whole = BlocksAround(part);
  StagingPool::Buffer buffer = co_await content_.staging.Take(whole.length.value);
  const MutableBytes bytes = buffer.bytes();
  absl::Status status = co_await child_.Read(whole, bytes);
  if (!status.ok()) {
    status = co_await child_.Read(part, dst);
    co_return status;
  }
  std::memcpy(dst.data(), bytes.data() + (part.offset - whole.offset).value, dst.size());
  co_await Keep(BlockOf(whole), bytes);
  co_return absl::OkStatus();
}

Task<absl::Status> Store::Fetch(ByteRange range) {
  StagingPool::Buffer buffer = co_await content_.staging.Take(range.length.value);
  while (!range.empty()) {
    ByteRange part = FirstPart(range);
    if (table_.Find(BlockOf(range)) == SlotTable::kNoSlot) {
      part = MissingPart(range);
      const MutableBytes bytes = buffer.bytes().first(part.length.value);
      CO_RETURN_IF_ERROR(co_await child_.Read(part, bytes));
      co_await KeepAll(part, bytes);
    }
    Advance(range, part);
  }
  co_return absl::OkStatus();
}

Task<void> Store::KeepAll(ByteRange range, Bytes bytes) {
  while (!range.empty()) {
    const ByteRange piece = FirstPart(range);
    co_await Keep(BlockOf(piece), bytes.first(piece.length.value));
    bytes = bytes.subspan(piece.length.value);
    Advance(range, piece);
  }
}

Task<void> Store::Keep(uint64_t block, Bytes bytes) {
  if (table_.Peek(block) != SlotTable::kNoSlot) co_return;
  const Slot slot = table_.Reserve();
  if (slot == SlotTable::kNoSlot) co_return;
  const absl::Status filled = co_await FillSlot(slot, bytes);
  // Somebody else may have been faster.
  if (filled.ok() && table_.Peek(block) == SlotTable::kNoSlot) {
    table_.Publish(slot, block);
  } else {
    table_.Cancel(slot);
  }
}

Task<absl::Status> Store::FillSlot(Slot slot, Bytes bytes) {
  const uint64_t begin = slot * block_;
  CO_RETURN_IF_ERROR(co_await scratch_.Write(Range(begin, bytes.size()), bytes, WriteOptions{}));
  if (bytes.size() == block_) co_return absl::OkStatus();
  const ByteRange rest = Range(begin + bytes.size(), block_ - bytes.size());
  absl::Status status = co_await scratch_.Zero(rest, ZeroOptions{});
  co_return status;
}

Task<absl::Status> Store::WriteThrough(ByteRange range, Bytes src, WriteOptions options) {
  absl::Status status = co_await child_.Write(range, src, options);
  if (!status.ok()) {
    DropClean(range);  // who knows what the child has now
    co_return status;
  }
  // The child has all of it: no block may stay as it was because of another's error.
  absl::Status first_error;
  while (!range.empty()) {
    const ByteRange piece = FirstPart(range);
    const Bytes bytes = src.first(piece.length.value);
    const Slot slot = table_.Find(BlockOf(piece));
    if (slot != SlotTable::kNoSlot) {
      const absl::Status hit = co_await WriteThroughHit(slot, piece, bytes);
      first_error.Update(hit);
    } else if (IsWhole(piece)) {
      co_await Keep(BlockOf(piece), bytes);
    }
    src = src.subspan(bytes.size());
    Advance(range, piece);
  }
  co_return first_error;
}

// The child has `src` already.
Task<absl::Status> Store::WriteThroughHit(Slot slot, ByteRange piece, Bytes src) {
  const Pin pin(table_, slot);
  const uint64_t block = BlockOf(piece);
  if (IsWhole(piece)) table_.SetClean(block);
  absl::Status status = co_await scratch_.Write(InSlot(slot, piece), src, WriteOptions{});
  if (status.ok() || table_.IsDirty(block)) co_return status;
  table_.Drop(slot);
  co_return absl::OkStatus();
}

Task<absl::Status> Store::WriteHere(ByteRange range, Bytes src) {
  while (!range.empty()) {
    const ByteRange piece = FirstPart(range);
    const Bytes bytes = src.first(piece.length.value);
    Slot slot = table_.Find(BlockOf(piece));
    if (slot != SlotTable::kNoSlot) {
      CO_RETURN_IF_ERROR(co_await WriteHit(slot, piece, bytes));
    } else if (slot = table_.Reserve(); slot != SlotTable::kNoSlot) {
      CO_RETURN_IF_ERROR(co_await WriteMiss(slot, piece, bytes));
    } else {
      CO_RETURN_IF_ERROR(co_await child_.Write(piece, bytes, WriteOptions{}));
    }
    src = src.subspan(bytes.size());
    Advance(range, piece);
  }
  co_return absl::OkStatus();
}

Task<absl::Status> Store::WriteHit(Slot slot, ByteRange piece, Bytes src) {
  const Pin pin(table_, slot);
  const uint64_t block = BlockOf(piece);
  absl::Status status = co_await scratch_.Write(InSlot(slot, piece), src, WriteOptions{});
  if (status.ok()) {
    table_.SetDirty(block);
  } else if (!table_.IsDirty(block)) {
    table_.Drop(slot);
    status = co_await child_.Write(piece, src, WriteOptions{});
  }
  co_return status;
}

// `slot` is reserved. Whatever goes wrong with it, the child may still take the bytes.
Task<absl::Status> Store::WriteMiss(Slot slot, ByteRange piece, Bytes src) {
  const ByteRange whole = BlocksAround(piece);
  absl::Status status;
  if (whole == piece) {
    status = co_await FillDirty(slot, whole, src);
  } else {
    StagingPool::Buffer buffer = co_await content_.staging.Take(whole.length.value);
    const MutableBytes bytes = buffer.bytes();
    status = co_await child_.Read(whole, bytes);
    if (status.ok()) {
      std::memcpy(bytes.data() + (piece.offset - whole.offset).value, src.data(), src.size());
      status = co_await FillDirty(slot, whole, bytes);
    }
  }
  if (status.ok()) co_return status;
  table_.Cancel(slot);
  status = co_await child_.Write(piece, src, WriteOptions{});
  co_return status;
}

Task<absl::Status> Store::FillDirty(Slot slot, ByteRange whole, Bytes bytes) {
  CO_RETURN_IF_ERROR(co_await FillSlot(slot, bytes));
  table_.Publish(slot, BlockOf(whole));
  table_.SetDirty(BlockOf(whole));
  co_return absl::OkStatus();
}

Task<absl::Status> Store::Zero(ByteRange range, ZeroOptions options) {
  const absl::Status zeroed = co_await child_.Zero(range, options);
  if (options.fast_only && absl::IsUnimplemented(zeroed)) co_return zeroed;  // nothing has changed
  if (!zeroed.ok()) {
    DropClean(range);
    co_return zeroed;
  }
  absl::Status first_error;
  const std::vector<uint64_t> blocks = BlocksHere(range);
  for (const uint64_t block : blocks) {
    const Slot slot = table_.Peek(block);
    if (slot == SlotTable::kNoSlot) continue;  // has had to go meanwhile
    const ByteRange piece = Intersect(BytesOf(block), range);
    if (IsWhole(piece)) {
      table_.Drop(slot);
      continue;
    }
    const absl::Status status = co_await ZeroHit(slot, piece);
    first_error.Update(status);
  }
  co_return first_error;
}

// The child has the zeros already.
Task<absl::Status> Store::ZeroHit(Slot slot, ByteRange piece) {
  const Pin pin(table_, slot);
  absl::Status status = co_await scratch_.Zero(InSlot(slot, piece), ZeroOptions{});
  if (status.ok() || table_.IsDirty(BlockOf(piece))) co_return status;
  table_.Drop(slot);
  co_return absl::OkStatus();
}

// Dirty blocks must not go, since the child has older bytes than those that a discard may leave.
Task<absl::Status> Store::Discard(ByteRange range) {
  absl::Status status;
  if (HoldsDirty(range) && child_.limits().fast_zero) {
    status = co_await Zero(range, ZeroOptions{});
  } else {
    status = co_await child_.Discard(range);
    DropClean(range);
  }
  co_return status;
}

}  // namespace gabion::filters::caching
