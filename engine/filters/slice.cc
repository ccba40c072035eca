#include "engine/filters/slice.h"

#include <algorithm>
#include <cstddef>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/align.h"
#include "engine/base/check.h"
#include "engine/base/status_macros.h"
#include "engine/block/extent_algebra.h"
#include "engine/filters/partitions/search.h"

namespace gabion::filters {
namespace {

using block::ExtentList;
using block::Limits;
using block::WriteOptions;
using block::ZeroOptions;

// What of a child of `size` bytes the slice shows.
ByteRange Shown(ByteRange range, bool to_end, ByteCount size) {
  if (!to_end) return range;
  const uint64_t begin = range.offset.value;
  return ByteRange{range.offset, ByteCount{std::max(begin, size.value) - begin}};
}

Limits LimitsAbove(const Limits& child, ByteRange range, bool to_end) {
  const ByteRange shown = Shown(range, to_end, child.size);
  CHECK_EQ(child.padding.value, 0u);
  CHECK(FitsWithin(shown, child.size));
  CHECK(IsAlignedWithin(shown, child.alignment, child.size));
  Limits limits = child;
  limits.size = shown.length;
  return limits;
}

class Slice final : public Filter {
 public:
  Slice(block::Node& child, Environment environment, ByteRange range, bool to_end)
      : Filter(child, LimitsAbove(child.limits(), range, to_end), std::move(environment)),
        range_(range),
        to_end_(to_end) {}

  std::optional<ByteRange> OriginOf(ByteRange& range) const override { return Below(range); }

 private:
  // The place of a range of the slice in the child.
  ByteRange Below(ByteRange range) const {
    return ByteRange{range_.offset + ByteCount{range.offset.value}, range.length};
  }
  // Extents of the child as the slice shows them.
  ExtentList Above(ExtentList extents) const {
    return block::Shift(std::move(extents), range_.offset, ByteOffset{0});
  }

  Task<absl::Status> DoRead(ByteRange range, MutableBytes dst) override {
    return child().Read(Below(range), dst);
  }
  Task<absl::Status> DoWrite(ByteRange range, Bytes src, WriteOptions options) override {
    return child().Write(Below(range), src, options);
  }
  Task<absl::Status> DoZero(ByteRange range, ZeroOptions options) override {
    return child().Zero(Below(range), options);
  }
  Task<absl::Status> DoDiscard(ByteRange range) override { return child().Discard(Below(range)); }
  Task<absl::Status> DoCache(ByteRange range) override { return child().Cache(Below(range)); }

  Task<absl::StatusOr<ExtentList>> DoBlockStatus(ByteRange range,
                                                 std::size_t max_extents) override {
    absl::StatusOr<ExtentList> extents = co_await child().BlockStatus(Below(range), max_extents);
    if (extents.ok()) extents = Above(*std::move(extents));
    co_return extents;
  }

  Task<absl::Status> DoResize(ByteCount size) override {
    if (!to_end_) {
      return Blame(absl::UnimplementedError("a part of fixed size cannot change its size"));
    }
    if (size.value > std::numeric_limits<int64_t>::max() - range_.offset.value) {
      return Blame(absl::OutOfRangeError(
          absl::StrCat("no disk has ", size.value, " bytes behind ", range_.offset.value)));
    }
    return Filter::DoResize(ByteCount{range_.offset.value} + size);
  }

  Limits DeriveLimits(const Limits& child) const override {
    return LimitsAbove(child, range_, to_end_);
  }

  const ByteRange range_;
  const bool to_end_;
};

}  // namespace

bool SliceFits(ByteRange range, bool to_end, const Limits& child) {
  return IsMultiple(range.offset.value, child.alignment.value) &&
         (to_end || IsMultiple(range.length.value, child.alignment.value));
}

std::unique_ptr<Filter> NewSlice(block::Node& child, Environment environment, ByteRange range,
                                 bool to_end) {
  return std::make_unique<Slice>(child, std::move(environment), range, to_end);
}

Task<absl::StatusOr<ByteRange>> FindPartition(block::Node& disk, uint32_t number) {
  CHECK_EQ(disk.limits().alignment.value, 1u);
  CHECK_EQ(disk.limits().memory_alignment, 1u);
  partitions::Search search(disk.limits().content_size(), number);
  std::vector<std::byte> memory;
  while (const std::optional<ByteRange> wanted = search.wanted()) {
    memory.resize(wanted->length.value);
    CO_RETURN_IF_ERROR(co_await disk.Read(*wanted, memory));
    search.Feed(memory);
  }
  co_return search.result();
}

}  // namespace gabion::filters
