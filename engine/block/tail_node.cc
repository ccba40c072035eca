#include "engine/block/tail_node.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/align.h"
#include "engine/base/check.h"
#include "engine/base/status_macros.h"
#include "engine/block/zeros.h"

namespace gabion::block {
namespace {

using runtime::Turnstile;

Limits LimitsAbove(const Limits& child, TailMode mode, ByteCount granule) {
  Limits limits = child;
  limits.size = TailSize(mode, child.size, granule);
  if (limits.size > child.size) limits.padding = limits.size - child.size;
  return limits;
}

}  // namespace

ByteCount TailSize(TailMode mode, ByteCount size, ByteCount granule) {
  if (mode == TailMode::kTruncate) return ByteCount{RoundDown(size.value, granule.value)};
  return ByteCount{RoundUp(size.value, granule.value)};
}

TailNode::TailNode(Node& child_node, TailMode mode, ByteCount granule, runtime::ReadyQueue& ready)
    : FilterNode(child_node, LimitsAbove(child_node.limits(), mode, granule)),
      mode_(mode),
      granule_(granule),
      turnstile_(ready),
      growth_ended_(ready) {
  CHECK(IsPowerOfTwo(granule.value));
  CHECK_EQ(child_node.limits().padding.value, 0u);
  CHECK(mode != TailMode::kTruncate || child_node.limits().alignment <= granule);
}

Limits TailNode::DeriveLimits(const Limits& child) const {
  return LimitsAbove(child, mode_, granule_);
}

std::optional<ByteRange> TailNode::OriginOf(ByteRange& range) const {
  const ByteRange content = Divide(range).content;
  if (content.empty()) return std::nullopt;
  return content;
}

TailNode::Parts TailNode::Divide(ByteRange range) const {
  const ByteCount content =
      Intersect(range, ByteRange{ByteOffset{0}, limits().content_size()}).length;
  return Parts{ByteRange{range.offset, content}, range.length - content};
}

bool TailNode::MayGrow() const {
  return mode_ == TailMode::kPadGrow && limits().padding > ByteCount{0};
}

Task<absl::Status> TailNode::ReadNow(ByteRange range, MutableBytes dst) {
  const Parts parts = Divide(range);
  const std::size_t content = parts.content.length.value;
  if (parts.padding > ByteCount{0}) std::memset(dst.data() + content, 0, parts.padding.value);
  if (parts.content.empty()) return absl::OkStatus();
  return child().Read(parts.content, dst.first(content));
}

Task<absl::Status> TailNode::WriteNow(ByteRange range, Bytes src, WriteOptions options) {
  const Parts parts = Divide(range);
  if (!parts.content.empty()) {
    return child().Write(parts.content, src.first(parts.content.length.value), options);
  }
  return options.durable ? child().Flush() : Task<absl::Status>(absl::OkStatus());
}

Task<absl::Status> TailNode::ZeroNow(ByteRange range, ZeroOptions options) {
  const Parts parts = Divide(range);
  if (!parts.content.empty()) return child().Zero(parts.content, options);
  return options.durable ? child().Flush() : Task<absl::Status>(absl::OkStatus());
}

Task<absl::Status> TailNode::DiscardNow(ByteRange range) {
  const Parts parts = Divide(range);
  if (parts.content.empty()) return absl::OkStatus();
  return child().Discard(parts.content);
}

Task<absl::Status> TailNode::CacheNow(ByteRange range) {
  const Parts parts = Divide(range);
  if (parts.content.empty()) return absl::OkStatus();
  return child().Cache(parts.content);
}

Task<absl::StatusOr<ExtentList>> TailNode::BlockStatusNow(ByteRange range,
                                                          std::size_t max_extents) {
  const Parts parts = Divide(range);
  // The answer may be short: the padding behind content is for the next call.
  if (!parts.content.empty()) return child().BlockStatus(parts.content, max_extents);
  ExtentList padding{Extent{.range = range, .kind = ExtentKind::kUnallocated, .layer = 0}};
  return absl::StatusOr<ExtentList>(std::move(padding));
}

Task<absl::Status> TailNode::DoRead(ByteRange range, MutableBytes dst) {
  return MayGrow() ? CountedRead(range, dst) : ReadNow(range, dst);
}

Task<absl::Status> TailNode::DoWrite(ByteRange range, Bytes src, WriteOptions options) {
  if (MayGrow()) return CountedWrite(range, src, options);
  if (!IsZero(src.subspan(Divide(range).content.length.value))) {
    return absl::Status(absl::ResourceExhaustedError(
        absl::StrCat("write of ", range.length.value, " bytes at ", range.offset.value,
                     " has data behind the end of the image at ", limits().content_size().value)));
  }
  return WriteNow(range, src, options);
}

Task<absl::Status> TailNode::DoZero(ByteRange range, ZeroOptions options) {
  return MayGrow() ? CountedZero(range, options) : ZeroNow(range, options);
}

Task<absl::Status> TailNode::DoDiscard(ByteRange range) {
  return MayGrow() ? CountedDiscard(range) : DiscardNow(range);
}

Task<absl::Status> TailNode::DoFlush() { return MayGrow() ? CountedFlush() : child().Flush(); }

Task<absl::Status> TailNode::DoCache(ByteRange range) {
  return MayGrow() ? CountedCache(range) : CacheNow(range);
}

Task<absl::StatusOr<ExtentList>> TailNode::DoBlockStatus(ByteRange range, std::size_t max_extents) {
  return MayGrow() ? CountedBlockStatus(range, max_extents) : BlockStatusNow(range, max_extents);
}

Task<absl::Status> TailNode::CountedRead(ByteRange range, MutableBytes dst) {
  const Turnstile::Pass pass = co_await turnstile_.Enter();
  absl::Status status = co_await ReadNow(range, dst);
  co_return status;
}

Task<absl::Status> TailNode::CountedWrite(ByteRange range, Bytes src, WriteOptions options) {
  // Decided by where the image ends now: it only grows, to where nothing is behind it.
  if (!IsZero(src.subspan(Divide(range).content.length.value))) {
    CO_RETURN_IF_ERROR(co_await Grow());
  }
  const Turnstile::Pass pass = co_await turnstile_.Enter();
  absl::Status status = co_await WriteNow(range, src, options);
  co_return status;
}

Task<absl::Status> TailNode::CountedZero(ByteRange range, ZeroOptions options) {
  const Turnstile::Pass pass = co_await turnstile_.Enter();
  absl::Status status = co_await ZeroNow(range, options);
  co_return status;
}

Task<absl::Status> TailNode::CountedDiscard(ByteRange range) {
  const Turnstile::Pass pass = co_await turnstile_.Enter();
  absl::Status status = co_await DiscardNow(range);
  co_return status;
}

Task<absl::Status> TailNode::CountedFlush() {
  const Turnstile::Pass pass = co_await turnstile_.Enter();
  absl::Status status = co_await child().Flush();
  co_return status;
}

Task<absl::Status> TailNode::CountedCache(ByteRange range) {
  const Turnstile::Pass pass = co_await turnstile_.Enter();
  absl::Status status = co_await CacheNow(range);
  co_return status;
}

Task<absl::StatusOr<ExtentList>> TailNode::CountedBlockStatus(ByteRange range,
                                                              std::size_t max_extents) {
  const Turnstile::Pass pass = co_await turnstile_.Enter();
  absl::StatusOr<ExtentList> extents = co_await BlockStatusNow(range, max_extents);
  co_return extents;
}

Task<absl::Status> TailNode::Grow() {
  while (growing_) co_await growth_ended_.Wait();
  if (!MayGrow()) co_return absl::OkStatus();  // somebody else has done it
  growing_ = true;
  turnstile_.Hold();
  co_await turnstile_.Drain();
  absl::Status status = co_await child().Resize(limits().size);
  Refresh();
  growing_ = false;
  turnstile_.Resume();
  growth_ended_.WakeAll();
  co_return status;
}

Task<absl::Status> TailNode::DoResize(ByteCount size) {
  absl::Status status = co_await child().Resize(size);
  Refresh();
  co_return status;
}

}  // namespace gabion::block
