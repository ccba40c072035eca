#include "engine/filters/protect.h"

#include <algorithm>
#include <limits>
#include <string>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/text.h"

namespace gabion::filters {
namespace {

using block::Limits;

constexpr uint64_t kEndOfOffsets = std::numeric_limits<uint64_t>::max();

Limits WithoutWriting(const Limits& child) {
  Limits limits = child;
  limits.writable = false;
  return limits;
}

// Nobody writes to it: limits().writable is what the contract of every node goes by.
class ReadOnly final : public Filter {
 public:
  ReadOnly(block::Node& child, Environment environment)
      : Filter(child, WithoutWriting(child.limits()), std::move(environment)) {}

 private:
  Task<absl::Status> DoResize(ByteCount) override {
    return Blame(absl::PermissionDeniedError("the disk is read-only"));
  }
  Limits DeriveLimits(const Limits& child) const override { return WithoutWriting(child); }
};

// The bytes [begin, end), up to the end of all offsets, which no disk reaches.
struct Span {
  uint64_t begin = 0;
  uint64_t end = 0;
};

// Sorted, apart from each other, none empty.
std::vector<Span> Merged(const std::vector<ByteRange>& ranges) {
  std::vector<Span> spans;
  for (const ByteRange& range : ranges) {
    const uint64_t room = kEndOfOffsets - range.offset.value;
    const uint64_t length = std::min(range.length.value, room);
    if (length > 0) spans.push_back(Span{range.offset.value, range.offset.value + length});
  }
  std::sort(spans.begin(), spans.end(),
            [](const Span& a, const Span& b) { return a.begin < b.begin; });
  std::vector<Span> merged;
  for (const Span& span : spans) {
    if (!merged.empty() && span.begin <= merged.back().end) {
      merged.back().end = std::max(merged.back().end, span.end);
    } else {
      merged.push_back(span);
    }
  }
  return merged;
}

std::vector<Span> Gaps(const std::vector<Span>& spans) {
  std::vector<Span> gaps;
  uint64_t begin = 0;
  for (const Span& span : spans) {
    if (span.begin > begin) gaps.push_back(Span{begin, span.begin});
    begin = span.end;
  }
  if (begin < kEndOfOffsets) gaps.push_back(Span{begin, kEndOfOffsets});
  return gaps;
}

std::string Describe(const Span& span) {
  if (span.end == kEndOfOffsets) return absl::StrCat("the bytes from ", span.begin, " on are");
  return absl::StrCat("the bytes ", span.begin, " to ", span.end - 1, " are");
}

class WriteProtect final : public LiveFilter<WriteProtectOptions> {
 public:
  WriteProtect(block::Node& child, Environment environment, const WriteProtectOptions& options)
      : LiveFilter(child, std::move(environment)) {
    Configure(options);
  }

  void Configure(const WriteProtectOptions& options) override {
    protected_ = Merged(options.ranges);
    if (options.inverted) protected_ = Gaps(protected_);
  }

  void TakeOver(Filter& before) override {
    refused_ = static_cast<const WriteProtect&>(before).refused_;
  }

  Statistics GetStatistics() const override { return {.counters = {{"refused", refused_}}}; }

 private:
  Task<absl::Status> DoWrite(ByteRange range, Bytes src, block::WriteOptions options) override {
    if (const Span* touched = FirstTouched(range)) return Refuse("write", range, *touched);
    return child().Write(range, src, options);
  }
  Task<absl::Status> DoZero(ByteRange range, block::ZeroOptions options) override {
    if (const Span* touched = FirstTouched(range)) return Refuse("zero", range, *touched);
    return child().Zero(range, options);
  }
  Task<absl::Status> DoDiscard(ByteRange range) override {
    if (const Span* touched = FirstTouched(range)) return Refuse("discard", range, *touched);
    return child().Discard(range);
  }

  // The first protected span that has a byte in common with `range`, or null.
  const Span* FirstTouched(ByteRange range) const {
    const auto span = std::upper_bound(protected_.begin(), protected_.end(), range.offset.value,
                                       [](uint64_t at, const Span& s) { return at < s.end; });
    return span != protected_.end() && span->begin < range.end().value ? &*span : nullptr;
  }

  absl::Status Refuse(std::string_view what, ByteRange range, const Span& touched) {
    ++refused_;
    return Blame(absl::PermissionDeniedError(absl::StrCat(AsAbsl(what), " of ", range.length.value,
                                                          " bytes at ", range.offset.value, ": ",
                                                          Describe(touched), " write-protected")));
  }

  std::vector<Span> protected_;
  uint64_t refused_ = 0;
};

}  // namespace

std::unique_ptr<Filter> NewReadOnly(block::Node& child, Environment environment) {
  return std::make_unique<ReadOnly>(child, std::move(environment));
}

std::unique_ptr<LiveFilter<WriteProtectOptions>> NewWriteProtect(
    block::Node& child, Environment environment, const WriteProtectOptions& options) {
  return std::make_unique<WriteProtect>(child, std::move(environment), options);
}

}  // namespace gabion::filters
