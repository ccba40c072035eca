#include "tests/sim/sim_disk.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <utility>

#include "engine/base/align.h"
#include "engine/base/check.h"

namespace gabion::sim {
namespace {

constexpr uint64_t kNotYet = ~uint64_t{0};

}  // namespace

void SimDisk::Read(uint64_t offset, MutableBytes dst) const {
  std::fill(dst.begin(), dst.end(), std::byte{0});
  const uint64_t end = offset + dst.size();
  for (auto it = sectors_.lower_bound(offset / kSector); it != sectors_.end(); ++it) {
    const uint64_t start = it->first * kSector;
    if (start >= end) break;
    const SectorBytes* bytes = it->second.back().bytes.get();
    if (bytes == nullptr) continue;
    const ByteRange part = Intersect(Range(start, kSector), Range(offset, dst.size()));
    std::memcpy(dst.data() + (part.offset.value - offset),
                bytes->data() + (part.offset.value - start), part.length.value);
  }
}

std::vector<io::FileExtent> SimDisk::Map(ByteRange range, std::size_t max_extents) const {
  std::vector<io::FileExtent> extents;
  uint64_t at = range.offset.value;
  const uint64_t end = range.end().value;
  while (at < end && extents.size() < max_extents) {
    auto next = allocated_.upper_bound(at / kBlock);  // begins behind `at`
    uint64_t until = next == allocated_.end() ? end : std::min(end, next->first * kBlock);
    bool hole = true;
    if (next != allocated_.begin()) {
      const uint64_t last = std::prev(next)->second * kBlock;
      if (last > at) {
        hole = false;
        until = std::min(end, last);
      }
    }
    extents.push_back({Range(at, until - at), hole});
    at = until;
  }
  return extents;
}

SimDisk::Call SimDisk::BeginCall() {
  ended_.push_back(kNotYet);
  return ended_.size() - 1;
}

void SimDisk::EndCall(Call call) { ended_[call] = ++clock_; }

void SimDisk::Push(uint64_t sector, Call call, std::unique_ptr<SectorBytes> bytes) {
  auto [it, added] = sectors_.try_emplace(sector);
  if (added) it->second.push_back(Version{0, nullptr});
  it->second.push_back(Version{call, std::move(bytes)});
  unsynced_.insert(sector);
}

void SimDisk::WriteSector(Call call, uint64_t offset, Bytes src) {
  const uint64_t sector = offset / kSector;
  CHECK_EQ((offset + src.size() - 1) / kSector, sector);
  auto bytes = std::make_unique<SectorBytes>();
  if (src.size() < kSector) Read(sector * kSector, *bytes);
  std::copy(src.begin(), src.end(), bytes->begin() + (offset - sector * kSector));
  Push(sector, call, std::move(bytes));
  Allocate(offset / kBlock, offset / kBlock + 1);
  size_.Reach(call, offset + src.size());
}

void SimDisk::ZeroPart(Call call, uint64_t offset, uint64_t length) {
  if (length == 0) return;
  const uint64_t sector = offset / kSector;
  const auto it = sectors_.find(sector);
  if (it == sectors_.end() || IsDurableZero(it->second)) return;
  auto bytes = std::make_unique<SectorBytes>();
  Read(sector * kSector, *bytes);
  std::fill_n(bytes->begin() + (offset - sector * kSector), length, std::byte{0});
  Push(sector, call, std::move(bytes));
}

void SimDisk::Zero(Call call, ByteRange range, bool keep) {
  const ByteRange inside = Intersect(range, Range(0, size()));
  if (inside.empty()) return;
  const uint64_t begin = inside.offset.value;
  const uint64_t end = inside.end().value;
  const uint64_t first = RoundUp(begin, kSector) / kSector;  // of the whole sectors
  const uint64_t last = end / kSector;
  if (first > last) {
    ZeroPart(call, begin, end - begin);
  } else {
    ZeroPart(call, begin, first * kSector - begin);
    ZeroPart(call, last * kSector, end - last * kSector);
    for (auto it = sectors_.lower_bound(first); it != sectors_.end() && it->first < last; ++it) {
      if (!IsDurableZero(it->second)) Push(it->first, call, nullptr);
    }
  }
  if (keep) {
    Allocate(begin / kBlock, RoundUp(end, kBlock) / kBlock);
  } else {
    const uint64_t stop = end == size() ? RoundUp(end, kBlock) : RoundDown(end, kBlock);
    Deallocate(RoundUp(begin, kBlock) / kBlock, stop / kBlock);
  }
}

void SimDisk::Resize(Call call, uint64_t size) {
  if (size < this->size()) Zero(call, Range(size, this->size() - size), false);
  size_.Set(call, size);
}

void SimDisk::Settle(Sectors::iterator sector, std::size_t first) {
  std::vector<Version>& versions = sector->second;
  versions.erase(versions.begin(), versions.begin() + static_cast<std::ptrdiff_t>(first));
  if (versions.size() > 1) return;
  unsynced_.erase(sector->first);
  if (versions.front().bytes == nullptr) sectors_.erase(sector);
}

void SimDisk::EndSync(uint64_t begun) {
  for (auto it = unsynced_.begin(); it != unsynced_.end();) {
    const auto sector = sectors_.find(*it++);  // Settle() may take it out of the set
    std::size_t last = sector->second.size() - 1;
    while (last > 0 && ended_[sector->second[last].call] > begun) --last;
    Settle(sector, last);
  }
  size_.Settle([&](Call call) { return ended_[call] <= begun; });
}

void SimDisk::MakeDurable(Call call, ByteRange range) {
  auto it = unsynced_.lower_bound(range.offset.value / kSector);
  while (it != unsynced_.end() && *it * kSector < range.end().value) {
    const auto sector = sectors_.find(*it++);
    for (std::size_t i = sector->second.size() - 1; i > 0; --i) {
      if (sector->second[i].call != call) continue;
      Settle(sector, i);
      break;
    }
  }
  size_.MakeDurable(range.end().value);
}

bool SimDisk::Fate::Keeps(Call call) {
  const auto [it, added] = kept.try_emplace(call, false);
  if (added) it->second = random.OneIn(2);
  return it->second;
}

std::size_t SimDisk::Fate::Choose(const std::vector<Version>& versions) {
  std::size_t last = versions.size() - 1;
  if (mode == kOldest) return 0;
  if (mode == kBySector) return random.Below(versions.size());
  while (mode == kByCall && last > 0 && !Keeps(versions[last].call)) --last;
  return last;
}

uint64_t SimDisk::SizeAfterCrash(Fate& fate) const {
  if (fate.mode == Fate::kOldest) return size_.durable();
  if (fate.mode == Fate::kNewest) return size_.visible();
  if (fate.mode == Fate::kByCall) return size_.With([&](Call call) { return fate.Keeps(call); });
  const auto [least, most] = size_.Bounds();
  if (fate.random.OneIn(4)) return most;
  return std::max(least, RoundDown(fate.random.Between(least, most), kSector));
}

void SimDisk::CutAt(uint64_t size) {
  sectors_.erase(sectors_.lower_bound(RoundUp(size, kSector) / kSector), sectors_.end());
  const auto tail = sectors_.find(size / kSector);
  if (tail == sectors_.end()) return;
  SectorBytes& bytes = *tail->second.front().bytes;
  std::fill(bytes.begin() + (size % kSector), bytes.end(), std::byte{0});
}

void SimDisk::Crash(test::RandomSource& random) {
  Fate fate{.mode = random.Pick({Fate::kOldest, Fate::kNewest, Fate::kBySector, Fate::kBySector,
                                 Fate::kByCall, Fate::kByCall}),
            .random = random,
            .kept = {}};
  while (!unsynced_.empty()) {
    const auto sector = sectors_.find(*unsynced_.begin());
    const std::size_t chosen = fate.Choose(sector->second);
    sector->second.erase(sector->second.begin() + static_cast<std::ptrdiff_t>(chosen) + 1,
                         sector->second.end());
    Settle(sector, chosen);
  }
  const uint64_t size = SizeAfterCrash(fate);
  size_.Reset(size);
  CutAt(size);
  for (const auto& [sector, versions] : sectors_) {
    const uint64_t block = sector * kSector / kBlock;
    Allocate(block, block + 1);
  }
  Deallocate(RoundUp(size, kBlock) / kBlock, kNotYet / kBlock);
  ended_ = {0};
  clock_ = 0;
  ++generation_;
}

void SimDisk::Allocate(uint64_t begin, uint64_t end) {
  auto it = allocated_.upper_bound(begin);
  if (it != allocated_.begin() && std::prev(it)->second >= begin) --it;
  while (it != allocated_.end() && it->first <= end) {
    if (it->first <= begin && it->second >= end) return;
    begin = std::min(begin, it->first);
    end = std::max(end, it->second);
    it = allocated_.erase(it);
  }
  allocated_[begin] = end;
}

void SimDisk::Deallocate(uint64_t begin, uint64_t end) {
  if (begin >= end) return;
  auto it = allocated_.upper_bound(begin);
  if (it != allocated_.begin() && std::prev(it)->second > begin) --it;
  while (it != allocated_.end() && it->first < end) {
    const auto [from, to] = *it;
    it = allocated_.erase(it);
    if (from < begin) allocated_[from] = begin;
    if (to > end) {
      allocated_[end] = to;
      break;
    }
  }
}

}  // namespace gabion::sim
