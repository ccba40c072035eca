// What filters stand on in tests: a clock that the test moves, a logger that keeps the lines, and
// nodes that answer with everything that a filter could lose.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/base/align.h"
#include "engine/block/extent_algebra.h"
#include "engine/block/filter_node.h"
#include "engine/filters/filter.h"
#include "tests/support/manual_clock.h"
#include "tests/support/memory_node.h"

namespace gabion::test {

class StandLogger final : public Logger {
 public:
  struct Line {
    LogLevel level;
    std::string message;
  };
  void Log(LogLevel level, std::string_view, std::string_view message) override {
    lines.push_back({level, std::string(message)});
  }
  std::vector<Line> lines;
};

// Owned by a test, outlives its filters; one thread.
struct FilterStand {
  runtime::ReadyQueue ready;
  ManualClock clock{ready};
  StandLogger logger;

  filters::Environment environment() { return {ready, clock, logger, "exports/a, filter 'f'"}; }
  // Runs whatever can go on without time passing, and takes the result.
  template <typename T>
  T Finish(Task<T> task) {
    ready.RunUntilIdle();
    return task.Take();
  }
};

// A node above `child` whose data has host offsets, with gaps and compressed pieces, and whose
// limits have a value of their own in every field that a filter should leave alone.
class RichNode final : public block::FilterNode {
 public:
  explicit RichNode(block::Node& below) : FilterNode(below, Enriched(below.limits())) {}

 private:
  static constexpr uint64_t kPiece = 700;

  static block::Limits Enriched(const block::Limits& child) {
    block::Limits limits = child;
    limits.preferred = ByteCount{32768};
    limits.preferred_from = "images/p";
    limits.emulated_alignment = ByteCount{8192};
    limits.emulated_from = "images/e";
    limits.layers = 3;
    limits.fast_zero = true;
    limits.hidden = Bit(block::Feature::kMultiConn);
    return limits;
  }
  block::Limits DeriveLimits(const block::Limits& child) const override { return Enriched(child); }

  Task<absl::StatusOr<block::ExtentList>> DoBlockStatus(ByteRange range,
                                                        std::size_t max_extents) override {
    const absl::StatusOr<block::ExtentList> plain = co_await child().BlockStatus(range, ~size_t{0});
    if (!plain.ok()) co_return plain.status();
    block::ExtentList rich;
    for (const block::Extent& extent : *plain) {
      for (uint64_t at = extent.range.offset.value; at < extent.range.end().value;) {
        const uint64_t end = std::min(extent.range.end().value, (at / kPiece + 1) * kPiece);
        block::Extent piece = extent;
        piece.range = Range(at, end - at);
        if (extent.kind == block::ExtentKind::kData) AddHost(piece);
        block::AppendExtent(rich, piece);
        at = end;
      }
    }
    if (rich.size() > max_extents) rich.resize(max_extents);
    co_return rich;
  }

  static void AddHost(block::Extent& piece) {
    const uint64_t index = piece.range.offset.value / kPiece;
    if (index % 4 == 1) return;
    piece.compressed = index % 4 == 3;
    piece.host_offset = piece.compressed ? 5'000'000 + index : kMiB + piece.range.offset.value;
  }
};

// All of `range`, asked for in questions of `max_extents`.
inline block::ExtentList MapOf(FilterStand& stand, block::Node& node, ByteRange range,
                               std::size_t max_extents) {
  block::ExtentList map;
  while (!range.empty()) {
    const absl::StatusOr<block::ExtentList> part =
        stand.Finish(node.BlockStatus(range, max_extents));
    EXPECT_TRUE(part.ok()) << part.status();
    if (!part.ok() || part->empty()) break;
    EXPECT_LE(part->size(), max_extents);
    EXPECT_EQ(part->front().range.offset, range.offset);
    EXPECT_LE(part->back().range.end(), range.end());
    block::AppendExtents(map, *part);
    const ByteOffset end = part->back().range.end();
    range = ByteRange{end, range.end() - end};
  }
  return map;
}

inline ByteRange WholeOf(const block::Node& node) {
  return ByteRange{ByteOffset{0}, node.limits().size};
}

// Expects the same limits but for the fields that are named `except` as in block::Limits.
inline void ExpectSameLimits(const block::Limits& a, const block::Limits& b,
                             const std::vector<std::string>& except = {}) {
  const auto same = [&except](const char* field, const auto& x, const auto& y) {
    if (std::find(except.begin(), except.end(), field) != except.end()) return;
    EXPECT_EQ(x, y) << field;
  };
  same("size", a.size.value, b.size.value);
  same("alignment", a.alignment.value, b.alignment.value);
  same("preferred", a.preferred.value, b.preferred.value);
  same("alignment_from", a.alignment_from, b.alignment_from);
  same("preferred_from", a.preferred_from, b.preferred_from);
  same("emulated_alignment", a.emulated_alignment.value, b.emulated_alignment.value);
  same("emulated_from", a.emulated_from, b.emulated_from);
  same("memory_alignment", a.memory_alignment, b.memory_alignment);
  same("padding", a.padding.value, b.padding.value);
  same("layers", a.layers, b.layers);
  same("writable", a.writable, b.writable);
  same("fast_zero", a.fast_zero, b.fast_zero);
  same("hidden", int{a.hidden}, int{b.hidden});
}

// Extents of all kinds and several layers, at random places.
inline void FillAtRandom(MemoryNode& node, RandomSource& random) {
  const uint64_t size = node.limits().size.value;
  for (uint64_t n = random.Below(20); size > 0 && n > 0; --n) {
    const ByteRange range = random.RangeWithin(size);
    const auto layer = static_cast<uint32_t>(random.Between(1, 3));
    const block::ExtentKind kinds[] = {block::ExtentKind::kZeroAllocated, block::ExtentKind::kZero,
                                       block::ExtentKind::kUnallocated};
    if (random.OneIn(2)) {
      std::vector<std::byte> bytes(range.length.value);
      random.FillNonZero(bytes);
      node.Put(range.offset.value, bytes, layer);
    } else {
      const block::ExtentKind kind = random.Pick(kinds);
      node.SetStatus(range, kind, kind == block::ExtentKind::kUnallocated ? 0 : layer);
    }
  }
}

// True if `content` has `bytes` at `offset`.
inline bool HasAt(const std::vector<std::byte>& content, uint64_t offset, Bytes bytes) {
  const Bytes there = Bytes(content).subspan(offset, bytes.size());
  return std::equal(bytes.begin(), bytes.end(), there.begin());
}

inline std::vector<std::byte> Filled(uint64_t size, uint8_t value) {
  return std::vector<std::byte>(size, std::byte{value});
}

}  // namespace gabion::test
