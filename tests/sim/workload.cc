#include "tests/sim/workload.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/align.h"
#include "engine/base/check.h"

namespace gabion::sim {
namespace {

constexpr std::size_t kRecent = 16;
constexpr uint64_t kVerifyPiece = 64 * kKiB;
constexpr std::byte kScribble{0xdb};

// Memory of a request, at an address whose alignment comes from the seed: nodes may treat aligned
// buffers in another way. Owned by the request.
class Buffer {
 public:
  Buffer(uint64_t length, test::RandomSource& random) : storage_(length + 2 * kPage, kScribble) {
    const auto begin = reinterpret_cast<uintptr_t>(storage_.data());
    skip_ = RoundUp(begin, kPage) - begin + (random.OneIn(2) ? 0 : random.Below(kPage));
    length_ = length;
  }
  MutableBytes bytes() { return MutableBytes(storage_).subspan(skip_, length_); }

 private:
  static constexpr uint64_t kPage = 4096;

  std::vector<std::byte> storage_;
  uint64_t skip_;
  uint64_t length_;
};

}  // namespace

Workload::Workload(SimWorld& world, Model& model, const Content& content, block::Node& node,
                   const WorkloadOptions& options)
    : world_(world), model_(model), content_(content), node_(node), options_(options) {
  CHECK_EQ(node.limits().alignment.value, 1u);
  CHECK_EQ(node.limits().size.value, model.size());
  CHECK(!options_.windows.empty());
}

Task<void> Workload::Run() {
  runtime::TaskSet running(world_.ready());
  std::size_t most = options_.most_in_flight;
  for (uint64_t i = 0; i < options_.operations && !Stopped(); ++i) {
    if (world_.random().OneIn(50)) most = world_.random().Between(1, options_.most_in_flight);
    while (running.running() >= most) co_await world_.Turn();
    running.Add(Issue());
    if (world_.random().OneIn(3)) co_await world_.Turn();
    if (world_.random().OneIn(100)) {
      Task<void> quiet = running.Drain();
      co_await quiet;
    }
  }
  Task<void> drained = running.Drain();
  co_await drained;
  CHECK_EQ(issued_, answered_);
}

Workload::Kind Workload::PickKind() {
  const uint64_t dice = world_.random().Below(100);
  if (dice < 26) return Kind::kRead;
  if (dice < 62) return Kind::kWrite;
  if (dice < 75) return Kind::kZero;
  if (dice < 82) return Kind::kDiscard;
  if (dice < 86) return Kind::kFlush;
  if (dice < 99) return Kind::kStatus;
  return Kind::kCache;
}

ByteRange Workload::PickFresh() {
  test::RandomSource& random = world_.random();
  const ByteRange window = options_.windows[random.Below(options_.windows.size())];
  const uint64_t room = window.length.value;
  if (random.OneIn(60)) return window;
  if (random.OneIn(3)) {  // anything, often within a sector or two
    const uint64_t length =
        random.Between(1, std::min<uint64_t>(room, random.PowerOfTwo(64, 65536)));
    const uint64_t at = random.OneIn(12) ? room - length : random.Between(0, room - length);
    return Range(window.offset.value + at, length);
  }
  const uint64_t unit = random.Pick({512u, 4096u, 4096u, 16384u, 65536u});
  const uint64_t begin = RoundDown(window.offset.value + random.Below(room), unit);
  return Intersect(Range(begin, unit * random.Between(1, std::max<uint64_t>(1, 32768 / unit))),
                   window);
}

ByteRange Workload::PickRange() {
  test::RandomSource& random = world_.random();
  if (!recent_.empty() && random.OneIn(4)) {
    const ByteRange again = recent_[random.Below(recent_.size())];
    if (random.OneIn(2) || again.length.value < 2) return again;
    const uint64_t skip = random.Below(again.length.value);
    return Range(again.offset.value + skip, random.Between(1, again.length.value - skip));
  }
  const ByteRange range = PickFresh();
  if (recent_.size() < kRecent) {
    recent_.push_back(range);
  } else {
    recent_[random.Below(kRecent)] = range;
  }
  return range;
}

Task<void> Workload::Issue() {
  test::RandomSource& random = world_.random();
  const ByteRange range = PickRange();
  const bool durable = random.OneIn(6);
  ++issued_;
  switch (PickKind()) {
    case Kind::kRead:
      return Read(range, false);
    case Kind::kWrite:
      return Write(range, durable, random.OneIn(12));
    case Kind::kZero: {
      // All over the disk only if that costs nothing: it may be many GiB.
      const bool anywhere = node_.limits().fast_zero && random.OneIn(40);
      const block::ZeroOptions options{.durable = durable,
                                       .may_unmap = random.OneIn(2),
                                       .fast_only = anywhere || random.OneIn(4)};
      return Zero(anywhere ? random.RangeWithin(model_.size()) : range, options);
    }
    case Kind::kDiscard:
      return Discard(random.OneIn(40) ? random.RangeWithin(model_.size()) : range);
    case Kind::kFlush:
      return Flush();
    case Kind::kStatus:
      return Status(random.OneIn(20) ? Range(0, model_.size()) : range, random.PowerOfTwo(1, 256),
                    nullptr);
    case Kind::kCache:
      return Cache(range);
  }
  return Task<void>();
}

void Workload::Judge(const absl::Status& verdict) {
  if (!verdict.ok() && !world_.crashed()) findings_.push_back(std::string(verdict.message()));
}

void Workload::JudgeError(const char* what, const absl::Status& status) {
  if (status.ok() || options_.may_fail || world_.crashed()) return;
  findings_.push_back(absl::StrCat(what, " failed: ", status.ToString()));
}

void Workload::End(OpId op, const absl::Status& status, bool durable, bool may_decline) {
  ++answered_;
  if (world_.crashed()) return;
  if (status.ok()) {
    model_.Succeed(op, durable);
  } else if (may_decline && absl::IsUnimplemented(status)) {
    model_.Withdraw(op);
  } else {
    model_.Fail(op);
    JudgeError("change", status);
  }
}

Task<void> Workload::Read(ByteRange range, bool lasting) {
  Buffer buffer(range.length.value, world_.random());
  const Model::Moment begun = model_.BeginLook();
  const absl::Status status = co_await node_.Read(range, buffer.bytes());
  ++answered_;
  if (world_.crashed()) co_return;
  JudgeError("read", status);
  if (status.ok()) Judge(model_.CheckRead(begun, range, buffer.bytes(), lasting));
  model_.EndLook(begun);
}

Task<void> Workload::Write(ByteRange range, bool durable, bool zeros) {
  const OpId op = model_.Begin(zeros ? Effect::kZeros : Effect::kData, range);
  Buffer buffer(range.length.value, world_.random());
  const MutableBytes bytes = buffer.bytes();
  std::fill(bytes.begin(), bytes.end(), std::byte{0});
  if (!zeros) content_.Fill(op, range.offset.value, bytes);
  const block::WriteOptions options{.durable = durable};
  const absl::Status status = co_await node_.Write(range, bytes, options);
  End(op, status, durable, false);
  // Whoever still uses the buffer writes this.
  std::fill(bytes.begin(), bytes.end(), kScribble);
}

Task<void> Workload::Zero(ByteRange range, block::ZeroOptions options) {
  const OpId op = model_.Begin(Effect::kZeros, range);
  const absl::Status status = co_await node_.Zero(range, options);
  End(op, status, options.durable, options.fast_only);
}

Task<void> Workload::Discard(ByteRange range) {
  const OpId op = model_.Begin(Effect::kDiscard, range);
  const absl::Status status = co_await node_.Discard(range);
  End(op, status, false, false);
}

Task<void> Workload::Flush() {
  const Model::Moment begun = model_.BeginFlush();
  const absl::Status status = co_await node_.Flush();
  ++answered_;
  if (world_.crashed()) co_return;
  JudgeError("flush", status);
  if (status.ok()) model_.EndFlush(begun);
}

Task<void> Workload::Status(ByteRange range, std::size_t max_extents, uint64_t* covered) {
  const Model::Moment begun = model_.BeginLook();
  const absl::StatusOr<block::ExtentList> extents = co_await node_.BlockStatus(range, max_extents);
  ++answered_;
  if (world_.crashed()) co_return;
  JudgeError("status", extents.status());
  if (extents.ok()) {
    const absl::Status verdict =
        model_.CheckExtents(begun, range, *extents, max_extents, node_.limits());
    Judge(verdict);
    if (verdict.ok() && covered != nullptr) {
      *covered = extents->back().range.end().value - range.offset.value;
    }
  }
  model_.EndLook(begun);
}

Task<void> Workload::Cache(ByteRange range) {
  const absl::Status status = co_await node_.Cache(range);
  ++answered_;
  JudgeError("cache", status);
}

Task<void> Workload::Verify(bool lasting) {
  for (const ByteRange& window : options_.windows) {
    for (uint64_t at = 0; at < window.length.value && !Stopped(); at += kVerifyPiece) {
      const uint64_t length = std::min(kVerifyPiece, window.length.value - at);
      ++issued_;
      Task<void> read = Read(Range(window.offset.value + at, length), lasting);
      co_await read;
    }
  }
  for (uint64_t at = 0; at < model_.size() && !Stopped();) {
    uint64_t covered = 0;
    ++issued_;
    Task<void> status = Status(Range(at, model_.size() - at), 64, &covered);
    co_await status;
    at += covered;
    if (covered == 0) break;
  }
}

}  // namespace gabion::sim
