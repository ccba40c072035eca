#include "engine/filters/cache.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/align.h"
#include "engine/base/check.h"
#include "engine/base/reason.h"
#include "engine/base/status_macros.h"
#include "engine/filters/caching/store.h"
#include "engine/filters/caching/write_back.h"

namespace gabion::filters {
namespace {

using block::Extent;
using block::ExtentList;
using block::Limits;
using block::RangeLock;
using block::RangeLockMode;
using block::SlotTable;
using block::WriteOptions;
using block::ZeroOptions;
using caching::Store;
using caching::WriteBack;
using Mode = CacheOptions::Mode;

constexpr uint64_t kSmallestBlock = 4096;
constexpr uint64_t kLargestBlock = kMiB;
constexpr uint64_t kMostSlots = uint64_t{1} << 30;

class Cache;

class State final : public CacheState {
 public:
  State(runtime::ReadyQueue& ready, const CacheOptions& options)
      : content(ready, options.block_size, CountSlots(options)) {}

  static SlotTable::Slot CountSlots(const CacheOptions& options) {
    CHECK(IsPowerOfTwo(options.block_size));
    CHECK_GE(options.block_size, kSmallestBlock);
    CHECK_LE(options.block_size, kLargestBlock);
    const uint64_t slots = options.size / options.block_size;
    CHECK_GE(slots, 1u);
    CHECK_LE(slots, kMostSlots);
    return static_cast<SlotTable::Slot>(slots);
  }

  caching::Content content;
  const Cache* owner = nullptr;  // who writes back in the end
};

class Cache final : public LiveFilter<CacheOptions> {
 public:
  Cache(block::Node& child, Environment environment, const std::string& entry_id,
        block::Node& scratch, State& state, const CacheOptions& options)
      : LiveFilter(child, Derive(child.limits(), options.block_size, entry_id),
                   std::move(environment)),
        entry_id_(entry_id),
        state_(state),
        table_(state.content.table),
        block_(options.block_size),
        options_(options),
        store_(child, scratch, state.content),
        write_back_(store_, this->environment().ready, this->environment().clock) {
    for (const Limits* const limits : {&child.limits(), &scratch.limits()}) {
      CHECK_EQ(limits->alignment.value, 1u);
      CHECK_EQ(limits->memory_alignment, 1u);
    }
    CHECK(scratch.limits().writable);
    CHECK_GE(scratch.limits().size.value, CacheScratchSize(options).value);
    if (state_.owner == nullptr) state_.owner = this;
  }
  ~Cache() override {
    if (state_.owner == this) state_.owner = nullptr;
  }

  void Configure(const CacheOptions& options) override {
    CHECK_EQ(options.block_size, options_.block_size);
    CHECK_EQ(options.size, options_.size);
    options_ = options;
    write_back_.Nudge(CurrentMarks());
  }

  Statistics GetStatistics() const override {
    Statistics statistics;
    statistics.counters = {{"hits", state_.content.hits},
                           {"misses", state_.content.misses},
                           {"dirty_bytes", DirtyBytes()},
                           {"written_back_bytes", state_.content.written_back_bytes},
                           {"evictions", table_.evictions()}};
    return statistics;
  }

  void TakeOver(Filter& before) override {
    if (&static_cast<Cache&>(before).state_ == &state_) state_.owner = this;
  }

  Task<void> Settle() override;

 private:
  static Limits Derive(const Limits& child, uint64_t block_size, const std::string& entry_id) {
    Limits limits = child;
    if (limits.preferred.value < block_size) {
      limits.preferred.value = block_size;
      limits.preferred_from = entry_id;
    }
    return limits;
  }
  Limits DeriveLimits(const Limits& child) const override {
    return Derive(child, block_, entry_id_);
  }

  Task<absl::Status> DoRead(ByteRange range, MutableBytes dst) override;
  Task<absl::Status> DoWrite(ByteRange range, Bytes src, WriteOptions options) override;
  Task<absl::Status> DoZero(ByteRange range, ZeroOptions options) override;
  Task<absl::Status> DoDiscard(ByteRange range) override;
  Task<absl::Status> DoFlush() override;
  Task<absl::Status> DoCache(ByteRange range) override;
  Task<absl::Status> Fetch(ByteRange range);
  Task<absl::StatusOr<ExtentList>> DoBlockStatus(ByteRange range, std::size_t max_extents) override;
  Task<absl::StatusOr<ExtentList>> StatusAround(ByteRange range, std::size_t max_extents);
  Task<absl::Status> DoResize(ByteCount size) override;
  Task<absl::Status> ResizeSettled(ByteCount size);
  Task<absl::Status> DoClose() override { return DoFlush(); }

  uint64_t DirtyBytes() const { return table_.dirty() * block_; }
  WriteBack::Marks CurrentMarks() const {
    if (options_.mode == Mode::kWritethrough) return {};
    const auto share = [this](uint32_t percent) {
      return uint64_t{table_.slots()} * std::min<uint32_t>(percent, 100) / 100;
    };
    return {.high = share(options_.dirty_high_percent), .low = share(options_.dirty_low_percent)};
  }

  const std::string entry_id_;
  State& state_;
  SlotTable& table_;
  const uint64_t block_;
  CacheOptions options_;
  Store store_;
  WriteBack write_back_;
};

Task<absl::Status> Cache::DoRead(ByteRange range, MutableBytes dst) {
  const RangeLock::Guard guard = co_await store_.Lock(range, RangeLockMode::kShared);
  absl::Status status = co_await store_.Read(range, dst, options_.cache_on_read);
  co_return status;
}

Task<absl::Status> Cache::DoWrite(ByteRange range, Bytes src, WriteOptions options) {
  const RangeLock::Guard guard = co_await store_.Lock(range, RangeLockMode::kExclusive);
  absl::Status status;
  if (options.durable || options_.mode == Mode::kWritethrough) {
    status = co_await store_.WriteThrough(range, src, options);
  } else {
    status = co_await store_.WriteHere(range, src);
  }
  write_back_.Nudge(CurrentMarks());
  co_return status;
}

Task<absl::Status> Cache::DoZero(ByteRange range, ZeroOptions options) {
  const RangeLock::Guard guard = co_await store_.Lock(range, RangeLockMode::kExclusive);
  absl::Status status = co_await store_.Zero(range, options);
  co_return status;
}

Task<absl::Status> Cache::DoDiscard(ByteRange range) {
  const RangeLock::Guard guard = co_await store_.Lock(range, RangeLockMode::kExclusive);
  absl::Status status = co_await store_.Discard(range);
  co_return status;
}

Task<absl::Status> Cache::DoFlush() {
  if (table_.dirty() == 0) {
    absl::Status flushed = co_await child().Flush();
    co_return flushed;
  }
  absl::Status status = co_await write_back_.All();
  if (!status.ok()) {
    status = Blame(Annotate(status, "what is in the cache cannot be written to the disk"));
  }
  const absl::Status flushed = co_await child().Flush();
  status.Update(flushed);
  co_return status;
}

Task<absl::Status> Cache::DoCache(ByteRange range) {
  return options_.cache_on_read ? Fetch(range) : child().Cache(range);
}

Task<absl::Status> Cache::Fetch(ByteRange range) {
  ByteRange rest = store_.BlocksAround(range);
  rest.length.value = std::min(rest.length.value, table_.slots() * block_);
  while (!rest.empty()) {
    ByteRange piece = rest;
    piece.length.value = std::min(rest.length.value, Store::kLongestPiece);
    const RangeLock::Guard guard = co_await store_.Lock(piece, RangeLockMode::kShared);
    CO_RETURN_IF_ERROR(co_await store_.Fetch(piece));
    rest = ByteRange{piece.end(), rest.end() - piece.end()};
  }
  co_return absl::OkStatus();
}

Task<absl::StatusOr<ExtentList>> Cache::DoBlockStatus(ByteRange range, std::size_t max_extents) {
  if (table_.dirty() == 0) return child().BlockStatus(range, max_extents);
  return StatusAround(range, max_extents);
}

Task<absl::StatusOr<ExtentList>> Cache::StatusAround(ByteRange range, std::size_t max_extents) {
  ExtentList list;
  while (!range.empty() && list.size() < max_extents) {
    const SlotTable::Blocks dirty = table_.NextDirty(store_.BlockOf(range));
    const bool is_far = dirty.begin > range.end().value / block_;
    const ByteRange kept =
        is_far ? ByteRange{range.end(), ByteCount{0}}
               : Intersect(store_.BytesOf(dirty.begin, dirty.end - dirty.begin), range);
    ByteOffset end = kept.end();
    if (kept.empty() || kept.offset > range.offset) {
      const ByteOffset stop = kept.empty() ? range.end() : kept.offset;
      const ByteRange below{range.offset, stop - range.offset};
      CO_ASSIGN_OR_RETURN(const ExtentList extents,
                          co_await child().BlockStatus(below, max_extents - list.size()));
      for (const Extent& extent : extents) block::AppendExtent(list, extent);
      end = extents.back().range.end();
      if (end < stop) break;
    } else {
      block::AppendExtent(list, Extent{.range = kept, .layer = 1, .apart = true});
    }
    range = ByteRange{end, range.end() - end};
  }
  co_return list;
}

Task<absl::Status> Cache::DoResize(ByteCount size) {
  co_await write_back_.Stop();
  absl::Status status = co_await ResizeSettled(size);
  write_back_.Go();
  co_return status;
}

// A disk that grows goes on as the slot of its last block does, with zeros.
Task<absl::Status> Cache::ResizeSettled(ByteCount size) {
  if (size < limits().size) {
    CO_RETURN_IF_ERROR(co_await write_back_.All());
    table_.DropAll();
  }
  absl::Status status = co_await FilterNode::DoResize(size);
  co_return status;
}

Task<void> Cache::Settle() {
  co_await write_back_.Stop();
  if (state_.owner != this) co_return;
  const absl::Status status = co_await write_back_.All();
  if (status.ok()) co_return;
  const std::string message =
      absl::StrCat(environment().where, ": ", DirtyBytes(),
                   " bytes of the cache could not be written to the disk: ", status.ToString());
  environment().logger.Log(LogLevel::kError, "filters", message);
}

}  // namespace

ByteCount CacheScratchSize(const CacheOptions& options) {
  return ByteCount{RoundDown(options.size, options.block_size)};
}

std::unique_ptr<CacheState> NewCacheState(runtime::ReadyQueue& ready, const CacheOptions& options) {
  return std::make_unique<State>(ready, options);
}

ByteCount UnwrittenBytes(const CacheState& state) {
  const caching::Content& content = static_cast<const State&>(state).content;
  return ByteCount{content.table.dirty() * content.block_size};
}

std::unique_ptr<LiveFilter<CacheOptions>> NewCache(block::Node& child, Environment environment,
                                                   const std::string& entry_id,
                                                   block::Node& scratch, CacheState& state,
                                                   const CacheOptions& options) {
  State& known = static_cast<State&>(state);
  CHECK_EQ(known.content.block_size, uint64_t{options.block_size});
  CHECK_EQ(uint64_t{known.content.table.slots()}, options.size / options.block_size);
  return std::make_unique<Cache>(child, std::move(environment), entry_id, scratch, known, options);
}

}  // namespace gabion::filters
