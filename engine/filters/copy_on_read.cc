#include "engine/filters/copy_on_read.h"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/align.h"
#include "engine/base/check.h"
#include "engine/base/status_macros.h"
#include "engine/block/range_lock.h"
#include "engine/block/staging.h"

namespace gabion::filters {
namespace {

using block::Extent;
using block::ExtentKind;
using block::ExtentList;
using block::RangeLock;
using block::RangeLockMode;
using block::StagingPool;
using block::WriteOptions;
using block::ZeroOptions;

constexpr uint64_t kLargestGranule = 2 * kMiB;
constexpr uint64_t kLongestFill = kMiB;  // or one granule
constexpr uint64_t kStagingBudget = 16 * kMiB;
constexpr std::size_t kPage = 4096;
// A question for status: how far, and how many extents.
constexpr uint64_t kLongestQuestion = 16 * kMiB;
constexpr std::size_t kMostExtents = 64;
constexpr runtime::Duration kPauseAfterFailure = std::chrono::seconds(10);

uint64_t GranuleOf(const CopyOnReadOptions& options, const block::Limits& child) {
  const uint64_t preferred = std::min(child.preferred.value, kLargestGranule);
  return std::max({uint64_t{options.granularity}, preferred, child.alignment.value});
}

class CopyOnRead final : public Filter {
 public:
  CopyOnRead(block::Node& child, Environment environment, const CopyOnReadOptions& options)
      : Filter(child, std::move(environment)),
        bottom_(options.bottom_layer == 0 ? ~uint32_t{0} : options.bottom_layer),
        granule_(GranuleOf(options, child.limits())),
        lock_(this->environment().ready),
        staging_(this->environment().ready, kStagingBudget,
                 std::max<std::size_t>(kPage, child.limits().memory_alignment)) {
    CHECK(child.limits().writable);
    CHECK(IsPowerOfTwo(granule_));
    CHECK_LE(granule_, kLargestGranule);
  }

  Statistics GetStatistics() const override {
    Statistics statistics;
    statistics.counters = {{"bytes_filled", bytes_filled_}, {"fills_failed", fills_failed_}};
    return statistics;
  }

  void TakeOver(Filter& before) override {
    const auto& other = static_cast<const CopyOnRead&>(before);
    bytes_filled_ = other.bytes_filled_;
    fills_failed_ = other.fills_failed_;
    paused_until_ = other.paused_until_;
  }

 private:
  Task<absl::Status> DoRead(ByteRange range, MutableBytes dst) override {
    if (NothingIsDeep() || IsPaused()) return child().Read(range, dst);
    return FillAndRead(range, dst);
  }
  Task<absl::Status> DoWrite(ByteRange range, Bytes src, WriteOptions options) override {
    if (NothingIsDeep()) return child().Write(range, src, options);
    return LockedWrite(range, src, options);
  }
  Task<absl::Status> DoZero(ByteRange range, ZeroOptions options) override {
    if (NothingIsDeep()) return child().Zero(range, options);
    return LockedZero(range, options);
  }
  Task<absl::Status> DoDiscard(ByteRange range) override {
    if (NothingIsDeep()) return child().Discard(range);
    return LockedDiscard(range);
  }

  // Fills lock whole granules, so these need not round.
  Task<absl::Status> LockedWrite(ByteRange range, Bytes src, WriteOptions options) {
    const RangeLock::Guard guard = co_await lock_.Acquire(range, RangeLockMode::kShared);
    absl::Status status = co_await child().Write(range, src, options);
    co_return status;
  }
  Task<absl::Status> LockedZero(ByteRange range, ZeroOptions options) {
    const RangeLock::Guard guard = co_await lock_.Acquire(range, RangeLockMode::kShared);
    absl::Status status = co_await child().Zero(range, options);
    co_return status;
  }
  Task<absl::Status> LockedDiscard(ByteRange range) {
    const RangeLock::Guard guard = co_await lock_.Acquire(range, RangeLockMode::kShared);
    absl::Status status = co_await child().Discard(range);
    co_return status;
  }

  Task<absl::Status> FillAndRead(ByteRange range, MutableBytes dst) {
    const absl::Status filled = co_await FillAround(range);
    if (!filled.ok()) NoteFailure(filled);
    absl::Status status = co_await child().Read(range, dst);
    co_return status;
  }

  bool NothingIsDeep() const { return child().limits().layers == 1; }
  bool IsPaused() { return environment().clock.Now() < paused_until_; }
  bool IsToFill(const Extent& extent) const {
    return extent.kind == ExtentKind::kData && extent.layer > 1 && extent.layer <= bottom_;
  }

  // Fills all granules in which `range` holds data of deeper layers.
  Task<absl::Status> FillAround(ByteRange range) {
    ByteOffset at = range.offset;
    while (at < range.end() && !IsPaused()) {
      const ByteRange rest{at, range.end() - at};
      CO_ASSIGN_OR_RETURN(const ByteRange deep, co_await FindDeep(rest));
      if (deep.empty()) break;
      ByteRange fill = AlignOutward(deep, ByteCount{granule_}, limits().size);
      fill.length.value = std::min(fill.length.value, std::max(granule_, kLongestFill));
      CO_RETURN_IF_ERROR(co_await Fill(fill));
      at = fill.end();
    }
    co_return absl::OkStatus();
  }

  // The first run of bytes in `range` that are to be filled; empty if there are none.
  Task<absl::StatusOr<ByteRange>> FindDeep(ByteRange range) {
    ByteRange found;
    ByteOffset at = range.offset;
    while (at < range.end()) {
      ByteRange asked{at, range.end() - at};
      asked.length.value = std::min(asked.length.value, kLongestQuestion);
      CO_ASSIGN_OR_RETURN(const ExtentList extents,
                          co_await child().BlockStatus(asked, kMostExtents));
      for (const Extent& extent : extents) {
        if (IsToFill(extent)) {
          if (found.empty()) found.offset = extent.range.offset;
          found.length = extent.range.end() - found.offset;
        } else if (!found.empty()) {
          co_return found;
        }
        at = extent.range.end();
      }
      if (found.length.value >= kLongestFill) break;
    }
    co_return found;
  }

  // Writes those granules of `range`, which is whole ones, that hold data of deeper layers still.
  Task<absl::Status> Fill(ByteRange range) {
    const RangeLock::Guard guard = co_await lock_.Acquire(range, RangeLockMode::kExclusive);
    StagingPool::Buffer buffer = co_await staging_.Take(range.length.value);
    ByteOffset at = range.offset;
    while (at < range.end() && !IsPaused()) {
      const ByteRange rest{at, range.end() - at};
      CO_ASSIGN_OR_RETURN(const ByteRange deep, co_await FindDeep(rest));
      if (deep.empty()) break;
      const ByteRange whole = AlignOutward(deep, ByteCount{granule_}, range.end() - ByteOffset{});
      const MutableBytes bytes = buffer.bytes().first(whole.length.value);
      CO_RETURN_IF_ERROR(co_await child().Read(whole, bytes));
      CO_RETURN_IF_ERROR(co_await child().Write(whole, bytes, WriteOptions{}));
      bytes_filled_ += whole.length.value;
      at = whole.end();
    }
    co_return absl::OkStatus();
  }

  void NoteFailure(const absl::Status& status) {
    ++fills_failed_;
    const bool is_told = IsPaused();
    paused_until_ = environment().clock.Now() + kPauseAfterFailure;
    if (is_told) return;
    environment().logger.Log(
        LogLevel::kWarning, "filters",
        absl::StrCat(environment().where, ": what was read could not be copied into the image, ",
                     "nothing is copied for 10 s: ", status.ToString()));
  }

  const uint32_t bottom_;
  const uint64_t granule_;
  RangeLock lock_;
  StagingPool staging_;
  uint64_t bytes_filled_ = 0;
  uint64_t fills_failed_ = 0;
  runtime::Instant paused_until_;
};

}  // namespace

std::unique_ptr<Filter> NewCopyOnRead(block::Node& child, Environment environment,
                                      const CopyOnReadOptions& options) {
  return std::make_unique<CopyOnRead>(child, std::move(environment), options);
}

}  // namespace gabion::filters
