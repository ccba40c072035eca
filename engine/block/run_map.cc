#include "engine/block/run_map.h"

#include <iterator>

#include "engine/base/check.h"

namespace gabion::block {

RunMap::Run RunMap::Find(uint64_t unit) const {
  const auto next = runs_.upper_bound(unit);
  const uint64_t next_begin = next == runs_.end() ? ~uint64_t{0} : next->first;
  if (next == runs_.begin()) return Run{0, next_begin, 0};
  const auto& [begin, rest] = *std::prev(next);
  if (unit < rest.end) return Run{begin, rest.end, rest.state};
  return Run{rest.end, next_begin, 0};
}

void RunMap::SplitAt(uint64_t unit) {
  const auto next = runs_.lower_bound(unit);
  if (next == runs_.begin()) return;
  Rest& before = std::prev(next)->second;
  if (before.end <= unit) return;
  runs_.emplace_hint(next, unit, before);
  before.end = unit;
}

void RunMap::Set(uint64_t begin, uint64_t end, uint8_t state) {
  CHECK_LE(begin, end);
  CHECK_LT(state, kStates);
  if (begin == end) return;
  SplitAt(begin);
  SplitAt(end);
  auto next = runs_.lower_bound(begin);
  while (next != runs_.end() && next->first < end) {
    units_[next->second.state] -= next->second.end - next->first;
    next = runs_.erase(next);
  }
  if (state == 0) return;
  units_[state] += end - begin;
  if (next != runs_.end() && next->first == end && next->second.state == state) {
    end = next->second.end;
    next = runs_.erase(next);
  }
  if (next != runs_.begin()) {
    Rest& before = std::prev(next)->second;
    if (before.end == begin && before.state == state) {
      before.end = end;
      return;
    }
  }
  runs_.emplace_hint(next, begin, Rest{end, state});
}

}  // namespace gabion::block
