#include "engine/filters/retry.h"

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include "engine/base/check.h"
#include "engine/runtime/event.h"

namespace gabion::filters {
namespace {

using block::ExtentList;
using block::WriteOptions;
using block::ZeroOptions;
using runtime::Duration;
using runtime::Instant;

const absl::Status& StatusOf(const absl::Status& status) { return status; }
const absl::Status& StatusOf(const absl::StatusOr<ExtentList>& extents) { return extents.status(); }

bool MayPass(const absl::Status& status, const RetryOptions& options) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnimplemented:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kDataLoss:
      return false;
    case absl::StatusCode::kResourceExhausted:
      return options.retry_no_space;
    default:
      return true;
  }
}

// However short it is asked to be, others get their turn in between.
constexpr Duration kShortestBackoff = std::chrono::milliseconds(1);

// How long a request waits that has been made anew `retries` times.
Duration Backoff(const RetryOptions& options, uint32_t retries) {
  const Duration longest = std::max(options.max_backoff, kShortestBackoff);
  Duration backoff = std::max(options.initial_backoff, kShortestBackoff);
  for (uint32_t i = 0; i < retries && backoff < longest; ++i) backoff *= 2;
  return std::min(backoff, longest);
}

// A wait that ends when its time has come, or when Configure() ends it. Lives in the frame of the
// request that waits.
class Pause final : public runtime::Clock::Timer {
 public:
  explicit Pause(runtime::ReadyQueue& ready) : ended(ready) {}
  void Fire() override { End(); }
  void End() {
    if (std::exchange(is_over_, true)) return;
    ended.Set(true);
  }
  runtime::OneShot<bool> ended;

 private:
  bool is_over_ = false;
};

// The calls of a node as values: what can be made again. A buffer stays valid until the request
// that holds it is done.
struct ReadCall {
  ByteRange range;
  MutableBytes dst;
  Task<absl::Status> operator()(block::Node& node) const { return node.Read(range, dst); }
};
struct WriteCall {
  ByteRange range;
  Bytes src;
  WriteOptions options;
  Task<absl::Status> operator()(block::Node& node) const { return node.Write(range, src, options); }
};
struct ZeroCall {
  ByteRange range;
  ZeroOptions options;
  Task<absl::Status> operator()(block::Node& node) const { return node.Zero(range, options); }
};
struct DiscardCall {
  ByteRange range;
  Task<absl::Status> operator()(block::Node& node) const { return node.Discard(range); }
};
struct BlockStatusCall {
  ByteRange range;
  std::size_t max_extents;
  Task<absl::StatusOr<ExtentList>> operator()(block::Node& node) const {
    return node.BlockStatus(range, max_extents);
  }
};

class Retry final : public LiveFilter<RetryOptions> {
 public:
  Retry(block::Node& child, Environment environment, const RetryOptions& options)
      : LiveFilter(child, std::move(environment)), options_(options) {}
  ~Retry() override { CHECK(waiting_.empty()); }

  void Configure(const RetryOptions& options) override {
    options_ = options;
    for (Pause* pause : waiting_) pause->End();
  }

  void Hurry() override { Configure(RetryOptions{.max_retries = 0}); }

  void TakeOver(Filter& before) override {
    const auto& other = static_cast<const Retry&>(before);
    retries_ = other.retries_;
    recovered_ = other.recovered_;
    given_up_ = other.given_up_;
  }

  Statistics GetStatistics() const override {
    return {
        .counters = {{"retries", retries_}, {"recovered", recovered_}, {"given_up", given_up_}}};
  }

 private:
  // A request that succeeds at once needs no frame.
  template <typename Call>
  auto Make(Call call) -> decltype(call(child())) {
    auto task = call(child());
    if (!task.done()) return Persist(call, std::move(task));
    auto result = task.Take();
    if (!MayPass(StatusOf(result), options_)) return result;
    return Persist(call, decltype(task)(std::move(result)));
  }

  template <typename Call, typename T>
  Task<T> Persist(Call call, Task<T> task) {
    T result = co_await task;
    uint32_t retries = 0;
    while (MayPass(StatusOf(result), options_)) {
      const bool again = co_await MayTryAgain(retries);
      if (!again) {
        ++given_up_;
        co_return result;
      }
      ++retries;
      ++retries_;
      Task<T> next = call(child());
      result = co_await next;
    }
    if (retries > 0 && result.ok()) ++recovered_;
    co_return result;
  }

  // Waits until it is time for another try; false if there is none left. What Configure() says
  // meanwhile holds from then on.
  Task<bool> MayTryAgain(uint32_t retries) {
    runtime::Clock& clock = environment().clock;
    const Instant failed = clock.Now();
    while (retries < options_.max_retries) {
      const Instant due = failed + Backoff(options_, retries);
      if (clock.Now() >= due) co_return true;
      Pause pause(environment().ready);
      waiting_.push_back(&pause);
      clock.Schedule(pause, due);
      co_await pause.ended;
      clock.Cancel(pause);
      std::erase(waiting_, &pause);
    }
    co_return false;
  }

  Task<absl::Status> DoRead(ByteRange range, MutableBytes dst) override {
    return Make(ReadCall{range, dst});
  }
  Task<absl::Status> DoWrite(ByteRange range, Bytes src, WriteOptions options) override {
    return Make(WriteCall{range, src, options});
  }
  Task<absl::Status> DoZero(ByteRange range, ZeroOptions options) override {
    return Make(ZeroCall{range, options});
  }
  Task<absl::Status> DoDiscard(ByteRange range) override { return Make(DiscardCall{range}); }
  Task<absl::StatusOr<ExtentList>> DoBlockStatus(ByteRange range,
                                                 std::size_t max_extents) override {
    return Make(BlockStatusCall{range, max_extents});
  }

  RetryOptions options_;
  std::vector<Pause*> waiting_;
  uint64_t retries_ = 0;
  uint64_t recovered_ = 0;
  uint64_t given_up_ = 0;
};

}  // namespace

std::unique_ptr<LiveFilter<RetryOptions>> NewRetry(block::Node& child, Environment environment,
                                                   const RetryOptions& options) {
  return std::make_unique<Retry>(child, std::move(environment), options);
}

}  // namespace gabion::filters
