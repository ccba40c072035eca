// The size of a simulated file: what is durable, what is visible, and what lies between.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

namespace gabion::sim {

// Owned by a SimDisk. Calls are named by their numbers.
class SizeHistory {
 public:
  uint64_t visible() const { return visible_; }
  uint64_t durable() const { return durable_; }

  // `call` has written up to `end`: the file is at least that long.
  void Reach(uint64_t call, uint64_t end) {
    if (end <= durable_ && !HasCut()) return;
    visible_ = std::max(visible_, end);
    if (!changes_.empty() && changes_.back().call == call && !changes_.back().exact) {
      changes_.back().size = std::max(changes_.back().size, end);
    } else {
      changes_.push_back({call, end, false});
    }
  }

  // `call` has set the size.
  void Set(uint64_t call, uint64_t size) {
    visible_ = size;
    changes_.push_back({call, size, true});
  }

  // What calls of which `has_ended(call)` have done is durable.
  template <typename HasEnded>
  void Settle(HasEnded has_ended) {
    std::vector<Change> open;
    for (const Change& change : std::exchange(changes_, {})) {
      if (has_ended(change.call)) {
        durable_ = change.After(durable_);
      } else {
        open.push_back(change);
      }
    }
    changes_ = std::move(open);
  }

  // A write up to `end` is durable, and with it whatever set the size before.
  void MakeDurable(uint64_t end) {
    while (HasCut()) {
      durable_ = changes_.front().After(durable_);
      changes_.erase(changes_.begin());
    }
    durable_ = std::max(durable_, end);
  }

  // The size if of the changes since only those are kept of which `keeps(call)`.
  template <typename Keeps>
  uint64_t With(Keeps keeps) const {
    uint64_t size = durable_;
    for (const Change& change : changes_) {
      if (keeps(change.call)) size = change.After(size);
    }
    return size;
  }

  // The smallest and the largest size since the durable one.
  std::pair<uint64_t, uint64_t> Bounds() const {
    uint64_t size = durable_;
    std::pair<uint64_t, uint64_t> bounds{size, size};
    for (const Change& change : changes_) {
      size = change.After(size);
      bounds = {std::min(bounds.first, size), std::max(bounds.second, size)};
    }
    return bounds;
  }

  // Nothing else was ever so.
  void Reset(uint64_t size) {
    durable_ = visible_ = size;
    changes_.clear();
  }

 private:
  struct Change {
    uint64_t call;
    uint64_t size;
    bool exact;  // set, not reached
    uint64_t After(uint64_t before) const { return exact ? size : std::max(before, size); }
  };

  bool HasCut() const {
    return std::any_of(changes_.begin(), changes_.end(), [](const Change& c) { return c.exact; });
  }

  uint64_t durable_ = 0;
  uint64_t visible_ = 0;
  std::vector<Change> changes_;
};

}  // namespace gabion::sim
