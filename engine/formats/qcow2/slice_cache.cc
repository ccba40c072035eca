#include "engine/formats/qcow2/slice_cache.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "engine/base/align.h"
#include "engine/base/check.h"
#include "engine/base/status_macros.h"

namespace gabion::qcow2 {

SliceCache::SliceCache(io::File& file, runtime::ReadyQueue& ready, uint32_t slice_bytes,
                       ByteCount max_bytes, CacheBudget& shared)
    : file_(file),
      slice_bytes_(slice_bytes),
      max_bytes_(max_bytes.value),
      shared_(shared),
      loaded_(ready) {
  CHECK(IsPowerOfTwo(slice_bytes));
}

SliceCache::~SliceCache() { shared_.used -= slices_.size() * slice_bytes_; }

Task<absl::StatusOr<SliceCache::Slice*>> SliceCache::Load(uint64_t offset) {
  offset = RoundDown(offset, slice_bytes_);
  for (;;) {
    if (Slice* const slice = Find(offset); slice != nullptr) co_return slice;
    if (!loading_.contains(offset)) break;
    co_await loaded_.Wait();
  }
  loading_.insert(offset);
  std::unique_ptr<std::byte[]> bytes(new std::byte[slice_bytes_]);
  const MutableBytes whole(bytes.get(), slice_bytes_);
  const absl::Status read = co_await file_.Read(ByteOffset{offset}, whole);
  loading_.erase(offset);
  loaded_.WakeAll();
  if (!read.ok()) co_return read;
  // A table that was made at this place meanwhile is newer than what was read.
  if (Slice* const slice = Find(offset); slice != nullptr) co_return slice;
  MakeRoom();
  co_return &Insert(offset, std::move(bytes));
}

SliceCache::Slice& SliceCache::Insert(uint64_t offset, std::unique_ptr<std::byte[]> bytes) {
  auto slice = std::make_unique<Slice>();
  slice->offset = offset;
  slice->bytes = std::move(bytes);
  Slice& inserted = *slice;
  clock_.push_back(slice.get());
  slices_.emplace(offset, std::move(slice));
  shared_.used += slice_bytes_;
  return inserted;
}

void SliceCache::InsertZeros(uint64_t offset, uint64_t length) {
  CHECK(IsMultiple(offset | length, slice_bytes_));
  for (uint64_t at = offset; at < offset + length; at += slice_bytes_) {
    Slice* slice = Find(at);
    if (slice == nullptr) slice = &Insert(at, std::make_unique<std::byte[]>(slice_bytes_));
    std::memset(slice->bytes.get(), 0, slice_bytes_);
    MarkDirty(*slice);
  }
}

bool SliceCache::IsFull() const {
  const uint64_t bytes = slices_.size() * slice_bytes_;
  return bytes >= max_bytes_ || shared_.used >= shared_.limit;
}

void SliceCache::MakeRoom() {
  std::size_t looked_at = 0;
  while (slices_.size() > kAtLeast && IsFull() && looked_at < 2 * clock_.size()) {
    hand_ = hand_ < clock_.size() ? hand_ : 0;
    Slice* const slice = clock_[hand_];
    ++looked_at;
    if (slice->dirty || slice->writing || std::exchange(slice->used, false)) {
      ++hand_;
      continue;
    }
    clock_[hand_] = clock_.back();
    clock_.pop_back();
    slices_.erase(slice->offset);
    shared_.used -= slice_bytes_;
  }
}

std::vector<SliceRun> SliceCache::Copy(std::vector<Slice*>& slices) {
  std::sort(slices.begin(), slices.end(),
            [](const Slice* a, const Slice* b) { return a->offset < b->offset; });
  std::vector<SliceRun> runs;
  for (Slice* const slice : slices) {
    slice->dirty = false;
    slice->writing = true;
    if (runs.empty() || runs.back().offset + runs.back().bytes.size() != slice->offset) {
      runs.push_back({slice->offset, {}});
    }
    std::vector<std::byte>& bytes = runs.back().bytes;
    bytes.insert(bytes.end(), slice->bytes.get(), slice->bytes.get() + slice_bytes_);
  }
  return runs;
}

template <typename F>
void SliceCache::ForEach(const std::vector<SliceRun>& runs, F visit) {
  for (const SliceRun& run : runs) {
    for (uint64_t at = run.offset; at < run.offset + run.bytes.size(); at += slice_bytes_) {
      const auto found = slices_.find(at);
      CHECK(found != slices_.end());
      visit(*found->second);
    }
  }
}

void SliceCache::Written(const std::vector<SliceRun>& runs) {
  ForEach(runs, [](Slice& slice) { slice.writing = false; });
}

void SliceCache::PutBack(const std::vector<SliceRun>& runs) {
  ForEach(runs, [this](Slice& slice) {
    slice.writing = false;
    MarkDirty(slice);
  });
}

}  // namespace gabion::qcow2
