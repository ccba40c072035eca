#include "engine/filters/caching/write_back.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include "engine/base/status_macros.h"
#include "engine/block/range_lock.h"
#include "engine/block/staging.h"

namespace gabion::filters::caching {
namespace {

using block::RangeLock;
using block::RangeLockMode;
using block::SlotTable;
using block::StagingPool;

constexpr runtime::Duration kRest = std::chrono::seconds(1);
constexpr uint64_t kNone = ~uint64_t{0};

}  // namespace

void WriteBack::Nudge(Marks marks) {
  marks_ = marks;
  if (is_stopped_ || tasks_.running() > 0) return;
  if (store_.content().table.dirty() <= marks_.high || clock_.Now() < rests_until_) return;
  tasks_.Add(ToLowMark());
}

Task<void> WriteBack::ToLowMark() {
  const SlotTable& table = store_.content().table;
  while (!is_stopped_ && table.dirty() > marks_.low) {
    SlotTable::Blocks blocks = Next(from_);
    if (blocks.begin == kNone) blocks = Next(0);
    if (blocks.begin == kNone) break;
    const absl::Status status = co_await Blocks(blocks.begin, blocks.end);
    from_ = blocks.end;
    if (!status.ok()) {
      rests_until_ = clock_.Now() + kRest;
      break;
    }
    co_await ready_.Yield();  // clients come first
  }
}

Task<void> WriteBack::Stop() {
  is_stopped_ = true;
  return tasks_.Drain();
}

Task<absl::Status> WriteBack::All() {
  absl::Status first_error;
  uint64_t from = 0;
  for (SlotTable::Blocks blocks = Next(0); blocks.begin != kNone; blocks = Next(from)) {
    const absl::Status status = co_await Blocks(blocks.begin, blocks.end);
    first_error.Update(status);
    from = blocks.end;
  }
  co_return first_error;
}

SlotTable::Blocks WriteBack::Next(uint64_t from) const {
  SlotTable::Blocks blocks = store_.content().table.NextDirty(from);
  const uint64_t most = Store::kLongestPiece / store_.content().block_size;
  if (blocks.begin != kNone) blocks.end = std::min(blocks.end, blocks.begin + most);
  return blocks;
}

Task<absl::Status> WriteBack::Blocks(uint64_t begin, uint64_t end) {
  const ByteRange range = store_.BytesOf(begin, end - begin);
  const RangeLock::Guard guard = co_await store_.Lock(range, RangeLockMode::kShared);
  StagingPool::Buffer buffer = co_await store_.content().staging.Take(range.length.value);
  const SlotTable& table = store_.content().table;
  absl::Status first_error;
  // Some may be clean by now: others write back, too.
  for (uint64_t at = begin; at < end;) {
    const SlotTable::Blocks dirty = table.NextDirty(at);
    if (dirty.begin >= end) break;
    const uint64_t stop = std::min(dirty.end, end);
    absl::Status status = co_await Together(dirty.begin, stop, buffer.bytes());
    const bool try_each = !status.ok() && stop - dirty.begin > 1;
    if (try_each) status = absl::OkStatus();
    for (uint64_t each = dirty.begin; try_each && each < stop; ++each) {
      if (!table.IsDirty(each)) continue;
      const absl::Status one = co_await Together(each, each + 1, buffer.bytes());
      status.Update(one);
    }
    first_error.Update(status);
    at = stop;
  }
  co_return first_error;
}

Task<absl::Status> WriteBack::Together(uint64_t begin, uint64_t end, MutableBytes staged) {
  SlotTable& table = store_.content().table;
  std::vector<SlotTable::Pin> pins;
  for (uint64_t block = begin; block < end; ++block) pins.emplace_back(table, table.Peek(block));
  const ByteRange range = store_.BytesOf(begin, end - begin);
  for (uint64_t block = begin; block < end; ++block) {
    const ByteRange piece = store_.BytesOf(block);
    const MutableBytes bytes =
        staged.subspan((piece.offset - range.offset).value, piece.length.value);
    CO_RETURN_IF_ERROR(co_await store_.ReadSlot(pins[block - begin].slot(), piece, bytes));
  }
  const Bytes bytes = staged.first(range.length.value);
  CO_RETURN_IF_ERROR(co_await store_.child().Write(range, bytes, block::WriteOptions{}));
  for (uint64_t block = begin; block < end; ++block) {
    if (table.IsDirty(block)) table.SetClean(block);
  }
  store_.content().written_back_bytes += range.length.value;
  co_return absl::OkStatus();
}

}  // namespace gabion::filters::caching
