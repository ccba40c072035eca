#include "engine/filters/resize.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/align.h"
#include "engine/base/check.h"
#include "engine/block/zeros.h"

namespace gabion::filters {
namespace {

using block::Extent;
using block::ExtentKind;
using block::ExtentList;
using block::Limits;
using block::WriteOptions;
using block::ZeroOptions;

constexpr uint64_t kLargestDisk = (uint64_t{1} << 63) - 1;

Limits LimitsAbove(const Limits& child, const ResizeOptions& options) {
  CHECK_EQ(child.padding.value, 0u);
  Limits limits = child;
  limits.size = ResizedSize(options, child.size);
  // The last request may end where the child does not: behind the child's end that is no matter.
  CHECK(limits.size >= child.size || IsMultiple(limits.size.value, child.alignment.value));
  return limits;
}

class Resize final : public Filter {
 public:
  Resize(block::Node& child, Environment environment, const ResizeOptions& options)
      : Filter(child, LimitsAbove(child.limits(), options), std::move(environment)),
        options_(options) {}

  std::optional<ByteRange> OriginOf(ByteRange& range) const override {
    const ByteRange content = Divide(range).content;
    if (content.empty()) return std::nullopt;
    return content;
  }

 private:
  // What of a request the child has, and how many bytes lie behind its end.
  struct Parts {
    ByteRange content;
    ByteCount added;
  };

  Parts Divide(ByteRange range) const {
    const ByteCount content =
        Intersect(range, ByteRange{ByteOffset{0}, child().limits().size}).length;
    return Parts{ByteRange{range.offset, content}, range.length - content};
  }

  // Nothing is to be done for a request; a durable one waits for what has been written before it.
  Task<absl::Status> Drop(bool durable) {
    return durable ? child().Flush() : Task<absl::Status>(absl::OkStatus());
  }

  Task<absl::Status> DoRead(ByteRange range, MutableBytes dst) override {
    const Parts parts = Divide(range);
    const std::size_t content = parts.content.length.value;
    if (parts.added > ByteCount{0}) std::memset(dst.data() + content, 0, parts.added.value);
    if (parts.content.empty()) return absl::OkStatus();
    return child().Read(parts.content, dst.first(content));
  }

  Task<absl::Status> DoWrite(ByteRange range, Bytes src, WriteOptions options) override {
    const Parts parts = Divide(range);
    const std::size_t content = parts.content.length.value;
    if (!block::IsZero(src.subspan(content))) {
      return Blame(absl::ResourceExhaustedError(absl::StrCat(
          "write of ", range.length.value, " bytes at ", range.offset.value,
          " has data behind the end of the disk below at ", child().limits().size.value)));
    }
    if (parts.content.empty()) return Drop(options.durable);
    return child().Write(parts.content, src.first(content), options);
  }

  Task<absl::Status> DoZero(ByteRange range, ZeroOptions options) override {
    const Parts parts = Divide(range);
    if (parts.content.empty()) return Drop(options.durable);
    return child().Zero(parts.content, options);
  }

  Task<absl::Status> DoDiscard(ByteRange range) override {
    const Parts parts = Divide(range);
    if (parts.content.empty()) return absl::OkStatus();
    return child().Discard(parts.content);
  }

  Task<absl::Status> DoCache(ByteRange range) override {
    const Parts parts = Divide(range);
    if (parts.content.empty()) return absl::OkStatus();
    return child().Cache(parts.content);
  }

  Task<absl::StatusOr<ExtentList>> DoBlockStatus(ByteRange range,
                                                 std::size_t max_extents) override {
    const Parts parts = Divide(range);
    // The answer may be short: what is added behind the child's end is for the next call.
    if (!parts.content.empty()) return child().BlockStatus(parts.content, max_extents);
    ExtentList added{Extent{.range = range, .kind = ExtentKind::kUnallocated, .layer = 0}};
    return absl::StatusOr<ExtentList>(std::move(added));
  }

  Task<absl::Status> DoResize(ByteCount) override {
    return Blame(absl::UnimplementedError("the size that it shows is fixed by its parameters"));
  }

  // What would come out larger than any disk is rounded down instead.
  Limits DeriveLimits(const Limits& child) const override {
    ResizeOptions options = options_;
    if (options.mode == ResizeOptions::Mode::kRoundUp &&
        ResizedSize(options, child.size).value > kLargestDisk) {
      options.mode = ResizeOptions::Mode::kRoundDown;
      options.bytes = std::max(options.bytes, child.alignment.value);
    }
    return LimitsAbove(child, options);
  }

  const ResizeOptions options_;
};

}  // namespace

ByteCount ResizedSize(const ResizeOptions& options, ByteCount size) {
  switch (options.mode) {
    case ResizeOptions::Mode::kSize:
      return ByteCount{options.bytes};
    case ResizeOptions::Mode::kRoundUp:
      return ByteCount{RoundUp(size.value, options.bytes)};
    case ResizeOptions::Mode::kRoundDown:
      return ByteCount{RoundDown(size.value, options.bytes)};
  }
  CHECK(false);
}

bool ResizeFits(const ResizeOptions& options, const block::Limits& child) {
  switch (options.mode) {
    case ResizeOptions::Mode::kSize:
    case ResizeOptions::Mode::kRoundDown:
      return IsMultiple(options.bytes, child.alignment.value);
    case ResizeOptions::Mode::kRoundUp:
      return true;
  }
  CHECK(false);
}

std::unique_ptr<Filter> NewResize(block::Node& child, Environment environment,
                                  const ResizeOptions& options) {
  return std::make_unique<Resize>(child, std::move(environment), options);
}

}  // namespace gabion::filters
