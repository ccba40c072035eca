// What a disk must look like from above, whatever the filters below do: an array of bytes.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/base/align.h"
#include "engine/block/node.h"
#include "engine/filters/filter.h"
#include "engine/runtime/task_set.h"
#include "tests/engine/filters/filter_stand.h"
#include "tests/support/random_source.h"

namespace gabion::test {

// What filters stand on, and requests that are waited for. Owned by a test; one thread.
struct FilterBase : FilterStand {
  using FilterStand::Finish;
  void Finish(const Task<void>& task) {
    ready.RunUntilIdle();
    EXPECT_TRUE(task.done());
  }
  absl::Status Write(block::Node& node, ByteRange range, uint8_t value, bool durable = false) {
    const std::vector<std::byte> bytes = Filled(range.length.value, value);
    return Finish(node.Write(range, bytes, {.durable = durable}));
  }
  std::vector<std::byte> Read(block::Node& node, ByteRange range) {
    std::vector<std::byte> bytes = Filled(range.length.value, 0xee);
    const absl::Status status = Finish(node.Read(range, bytes));
    EXPECT_TRUE(status.ok()) << status;
    return bytes;
  }
  // The whole status of `range`, in questions of `max_extents`.
  block::ExtentList StatusOf(block::Node& node, ByteRange range, std::size_t max_extents) {
    block::ExtentList list;
    while (!range.empty()) {
      const absl::StatusOr<block::ExtentList> part = Finish(node.BlockStatus(range, max_extents));
      EXPECT_TRUE(part.ok()) << part.status();
      if (!part.ok()) break;
      EXPECT_FALSE(part->empty());
      EXPECT_LE(part->size(), max_extents);
      if (part->empty() || part->size() > max_extents) break;
      for (const block::Extent& extent : *part) {
        EXPECT_EQ(extent.range.offset.value, range.offset.value);
        EXPECT_TRUE(!extent.range.empty() && extent.range.end() <= range.end());
        EXPECT_EQ(extent.layer == 0, extent.kind == block::ExtentKind::kUnallocated);
        list.push_back(extent);
        range = ByteRange{extent.range.end(), range.end() - extent.range.end()};
      }
    }
    return list;
  }
};

inline uint64_t CounterOf(const filters::Filter& filter, const std::string& name) {
  for (const auto& counter : filter.GetStatistics().counters) {
    if (counter.name == name) return counter.value;
  }
  ADD_FAILURE() << "no counter " << name;
  return 0;
}

// Runs waves of concurrent requests on disjoint byte ranges, which yet share whatever units there
// are below, and compares with an array of bytes. Where a request failed, or a discard was made,
// each byte may be the old one or the new one; which one it is counts from then on.
//
// Owned by a test; borrows everything it is given.
class DiskModel {
 public:
  struct Mode {
    uint64_t window = 0;    // most requests lie so close together; 0: anywhere
    bool writes = true;     // writes, zeros and discards, too
    bool may_fail = false;  // the nodes below make errors
  };

  DiskModel(FilterBase& base, RandomSource& random, block::Node& node,
            std::vector<std::byte> content, Mode mode)
      : base_(base), random_(random), node_(&node), content_(std::move(content)), mode_(mode) {}

  // Another node shows the same disk from now on.
  void SetNode(block::Node& node) { node_ = &node; }
  void SetMayFail(bool may_fail) { mode_.may_fail = may_fail; }
  // What flushes and durable requests have called done must be in `below`.
  void SetBelow(MemoryNode& below) { below_ = &below; }
  const std::vector<std::byte>& content() const { return content_; }
  uint64_t failures() const { return failures_; }

  void RunWave() {
    requests_.clear();
    {
      runtime::TaskSet tasks(base_.ready);
      for (uint64_t n = random_.Between(2, 12); n > 0; --n) {
        const ByteRange range = PickRange();
        const auto meets = [&range](const auto& other) { return Overlaps(range, other->range); };
        if (std::any_of(requests_.begin(), requests_.end(), meets)) continue;
        requests_.push_back(std::make_unique<Request>());
        requests_.back()->range = range;
        tasks.Add(Start(*requests_.back()));
        if (random_.OneIn(3)) base_.ready.RunOnce();
      }
      base_.ready.RunUntilIdle();
      ASSERT_EQ(tasks.running(), 0u);
    }
    if (mode_.may_fail) return;
    ASSERT_NO_FATAL_FAILURE(Settle());
    CheckStatus();
  }

  // Nothing fails any more: what requests left behind is looked at.
  void Settle() {
    const std::vector<std::byte> found = base_.Read(*node_, Range(0, content_.size()));
    for (const Mix& mix : mixes_) {
      for (uint64_t i = 0; i < mix.fresh.size(); ++i) {
        const std::byte byte = found[mix.offset + i];
        if (byte == mix.fresh[i]) content_[mix.offset + i] = byte;
      }
    }
    mixes_.clear();
    ASSERT_EQ(found, content_);
  }

  // What is called zero reads as zeros.
  void CheckStatus() {
    const ByteRange asked = random_.RangeWithin(content_.size());
    for (const block::Extent& extent : base_.StatusOf(*node_, asked, random_.Between(1, 5))) {
      if (!ReadsZero(extent.kind)) continue;
      for (uint64_t at = extent.range.offset.value; at < extent.range.end().value; ++at) {
        ASSERT_EQ(content_[at], std::byte{0}) << "called zero at " << at;
      }
    }
  }

  // What differs from the disk below is allocated in the top layer; whatever else is said is what
  // the disk below says.
  void CheckLayers(MemoryNode& below) {
    const ByteRange all = Range(0, content_.size());
    const block::ExtentList above_list = base_.StatusOf(*node_, all, random_.Between(1, 9));
    const block::ExtentList below_list = base_.StatusOf(below, all, 100);
    auto under = below_list.begin();
    for (const block::Extent& extent : above_list) {
      const bool is_top = extent.layer == 1 && extent.kind != block::ExtentKind::kZeroAllocated;
      for (uint64_t at = extent.range.offset.value; at < extent.range.end().value; ++at) {
        while (under->range.end().value <= at) ++under;
        const bool is_same = extent.kind == under->kind && extent.layer == under->layer;
        ASSERT_TRUE(is_top || is_same) << at;
        ASSERT_TRUE(is_top || content_[at] == below.content()[at]) << at;
      }
    }
  }

 private:
  struct Request {
    ByteRange range;
    std::vector<std::byte> bytes;
  };
  struct Mix {
    uint64_t offset;
    std::vector<std::byte> fresh;
  };

  ByteRange PickRange() {
    const uint64_t size = content_.size();
    if (mode_.window == 0 || random_.OneIn(4)) return random_.RangeWithin(size);
    const uint64_t window = std::min(size, mode_.window);
    ByteRange range = random_.RangeWithin(window);
    range.length.value = std::min(range.length.value, random_.Between(1, window / 3 + 1));
    if (random_.OneIn(3)) range.offset.value += size - window;
    return range;
  }

  Task<void> Start(Request& request) {
    switch (random_.Below(mode_.writes ? 10 : 4)) {
      case 0:
        return Look(request);
      case 1:
      case 2:
      case 3:
        return Read(request);
      case 4:
        return Zero(request);
      case 5:
        return Discard(request);
      case 6:
        return Flush();
      default:
        return Write(request);
    }
  }

  bool Succeeded(const absl::Status& status) {
    if (!status.ok()) ++failures_;
    EXPECT_TRUE(status.ok() || mode_.may_fail) << status;
    return status.ok();
  }

  // The outcome of a change: `fresh` holds, or each byte is one or the other.
  void Note(const Request& request, std::vector<std::byte> fresh, bool holds) {
    if (!holds) {
      mixes_.push_back({request.range.offset.value, std::move(fresh)});
      return;
    }
    // What was in doubt is not any more.
    for (Mix& mix : mixes_) {
      for (uint64_t i = 0; i < fresh.size(); ++i) {
        const uint64_t at = request.range.offset.value + i;
        if (at >= mix.offset && at < mix.offset + mix.fresh.size()) {
          mix.fresh[at - mix.offset] = fresh[i];
        }
      }
    }
    std::copy(fresh.begin(), fresh.end(), content_.data() + request.range.offset.value);
  }

  // True if a failed request or a discard may have left `byte` there.
  bool MayBe(uint64_t at, std::byte byte) const {
    return std::any_of(mixes_.begin(), mixes_.end(), [at, byte](const Mix& mix) {
      const bool is_within = at >= mix.offset && at < mix.offset + mix.fresh.size();
      return is_within && mix.fresh[at - mix.offset] == byte;
    });
  }

  Task<void> Read(Request& request) {
    request.bytes.resize(request.range.length.value);
    const absl::Status status = co_await node_->Read(request.range, request.bytes);
    if (!Succeeded(status)) co_return;
    for (uint64_t i = 0; i < request.bytes.size(); ++i) {
      const uint64_t at = request.range.offset.value + i;
      if (request.bytes[i] == content_[at] || MayBe(at, request.bytes[i])) continue;
      ADD_FAILURE() << "byte " << at << " is " << int(request.bytes[i]) << ", not "
                    << int(content_[at]);
      break;
    }
  }
  Task<void> Look(Request& request) {
    const absl::StatusOr<block::ExtentList> list =
        co_await node_->BlockStatus(request.range, random_.Between(1, 5));
    EXPECT_TRUE(!Succeeded(list.status()) || !list->empty());
  }
  Task<void> Write(Request& request) {
    request.bytes.resize(request.range.length.value);
    random_.FillNonZero(request.bytes);
    const block::WriteOptions options{.durable = random_.OneIn(4)};
    const absl::Status status = co_await node_->Write(request.range, request.bytes, options);
    Note(request, request.bytes, Succeeded(status));
    if (status.ok() && options.durable) CheckBelow(request.range);
  }
  Task<void> Zero(Request& request) {
    const block::ZeroOptions options{
        .durable = random_.OneIn(4), .may_unmap = !random_.OneIn(4), .fast_only = random_.OneIn(4)};
    const absl::Status status = co_await node_->Zero(request.range, options);
    if (options.fast_only && absl::IsUnimplemented(status)) co_return;  // nothing has changed
    Note(request, Filled(request.range.length.value, 0), Succeeded(status));
    if (status.ok() && options.durable) CheckBelow(request.range);
  }
  Task<void> Discard(Request& request) {
    const absl::Status status = co_await node_->Discard(request.range);
    Succeeded(status);
    Note(request, Filled(request.range.length.value, 0), false);
  }
  Task<void> Flush() {
    const absl::Status status = co_await node_->Flush();
    if (!Succeeded(status)) co_return;
    // Requests of this wave may or may not have been done before.
    std::vector<bool> is_old(content_.size(), true);
    for (const std::unique_ptr<Request>& request : requests_) {
      for (uint64_t i = 0; i < request->range.length.value; ++i) {
        is_old[request->range.offset.value + i] = false;
      }
    }
    for (uint64_t at = 0; at < content_.size(); ++at) {
      if (is_old[at]) CheckBelow(Range(at, 1));
    }
  }
  void CheckBelow(ByteRange range) {
    if (below_ == nullptr) return;
    for (uint64_t at = range.offset.value; at < range.end().value; ++at) {
      const std::byte byte = below_->content()[at];
      if (byte == content_[at] || MayBe(at, byte)) continue;
      ADD_FAILURE() << "byte " << at << " was called durable, and is not";
      return;
    }
  }

  FilterBase& base_;
  RandomSource& random_;
  block::Node* node_;
  std::vector<std::byte> content_;
  Mode mode_;
  std::vector<std::unique_ptr<Request>> requests_;  // of the wave
  std::vector<Mix> mixes_;
  MemoryNode* below_ = nullptr;
  uint64_t failures_ = 0;
};

}  // namespace gabion::test
