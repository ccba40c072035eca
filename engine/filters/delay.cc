#include "engine/filters/delay.h"

#include <cstdint>
#include <functional>
#include <map>
#include <random>
#include <utility>
#include <vector>

#include "engine/runtime/event.h"

namespace gabion::filters {
namespace {

using block::ExtentList;
using block::WriteOptions;
using block::ZeroOptions;
using runtime::Clock;
using runtime::Duration;
using runtime::Instant;

class Delay final : public LiveFilter<DelayOptions> {
 public:
  Delay(block::Node& child_node, Environment environment_of_it, const DelayOptions& options)
      : LiveFilter(child_node, std::move(environment_of_it)),
        options_(options),
        // Filters differ, and each does the same whenever it is made.
        random_(std::hash<std::string>()(environment().where)) {}

  void Configure(const DelayOptions& options) override {
    options_ = options;
    std::vector<Waiter*> waiters;
    for (const auto& [number, waiter] : waiting_) waiters.push_back(waiter);
    for (Waiter* const waiter : waiters) waiter->Follow();
  }

  void Hurry() override { Configure(DelayOptions{}); }

  void TakeOver(Filter& before) override {
    const auto& other = static_cast<const Delay&>(before);
    delayed_ = other.delayed_;
    random_ = other.random_;
  }

  Statistics GetStatistics() const override {
    return Statistics{.counters = {{"delayed", delayed_}, {"waiting", waiting_.size()}}};
  }

 private:
  // A request that waits; in its frame.
  class Waiter final : public Clock::Timer {
   public:
    Waiter(Delay& filter, Operation operation)
        : over(filter.environment().ready),
          filter_(filter),
          operation_(operation),
          number_(filter.delayed_++),
          start_(filter.clock().Now()),
          luck_(std::uniform_real_distribution<double>()(filter.random_)) {
      filter_.waiting_[number_] = this;
      Follow();
    }

    // Waits as long as the filter's options say now, from the beginning.
    void Follow() {
      const Instant end = start_ + filter_.WaitOf(operation_, luck_);
      if (end <= filter_.clock().Now()) {
        filter_.clock().Cancel(*this);
        Fire();
      } else {
        filter_.clock().Schedule(*this, end);
      }
    }
    void Fire() override {
      filter_.waiting_.erase(number_);
      over.Set(true);
    }

    runtime::OneShot<bool> over;

   private:
    Delay& filter_;
    const Operation operation_;
    const uint64_t number_;
    const Instant start_;
    const double luck_;  // how much of the jitter it gets
  };

  Clock& clock() { return environment().clock; }

  Duration BaseOf(Operation operation) const {
    switch (operation) {
      case Operation::kRead:
        return options_.read;
      case Operation::kWrite:
        return options_.write;
      case Operation::kZero:
        return options_.zero;
      case Operation::kDiscard:
        return options_.discard;
      case Operation::kFlush:
        return options_.flush;
      case Operation::kBlockStatus:
        return options_.block_status;
      case Operation::kCache:
        break;
    }
    return Duration::zero();
  }
  bool Waits(Operation operation) const { return BaseOf(operation) > Duration::zero(); }
  Duration WaitOf(Operation operation, double luck) const {
    if (!Waits(operation)) return Duration::zero();
    const double jitter = luck * static_cast<double>(options_.jitter.count());
    return BaseOf(operation) + Duration(static_cast<int64_t>(jitter));
  }

  Task<absl::Status> DoRead(ByteRange range, MutableBytes dst) override {
    return Waits(Operation::kRead) ? ReadLater(range, dst) : child().Read(range, dst);
  }
  Task<absl::Status> DoWrite(ByteRange range, Bytes src, WriteOptions options) override {
    return Waits(Operation::kWrite) ? WriteLater(range, src, options)
                                    : child().Write(range, src, options);
  }
  Task<absl::Status> DoZero(ByteRange range, ZeroOptions options) override {
    return Waits(Operation::kZero) ? ZeroLater(range, options) : child().Zero(range, options);
  }
  Task<absl::Status> DoDiscard(ByteRange range) override {
    return Waits(Operation::kDiscard) ? DiscardLater(range) : child().Discard(range);
  }
  Task<absl::Status> DoFlush() override {
    return Waits(Operation::kFlush) ? FlushLater() : child().Flush();
  }
  Task<absl::StatusOr<ExtentList>> DoBlockStatus(ByteRange range,
                                                 std::size_t max_extents) override {
    return Waits(Operation::kBlockStatus) ? BlockStatusLater(range, max_extents)
                                          : child().BlockStatus(range, max_extents);
  }

  Task<absl::Status> ReadLater(ByteRange range, MutableBytes dst) {
    Waiter waiter(*this, Operation::kRead);
    co_await waiter.over;
    absl::Status status = co_await child().Read(range, dst);
    co_return status;
  }
  Task<absl::Status> WriteLater(ByteRange range, Bytes src, WriteOptions options) {
    Waiter waiter(*this, Operation::kWrite);
    co_await waiter.over;
    absl::Status status = co_await child().Write(range, src, options);
    co_return status;
  }
  Task<absl::Status> ZeroLater(ByteRange range, ZeroOptions options) {
    Waiter waiter(*this, Operation::kZero);
    co_await waiter.over;
    absl::Status status = co_await child().Zero(range, options);
    co_return status;
  }
  Task<absl::Status> DiscardLater(ByteRange range) {
    Waiter waiter(*this, Operation::kDiscard);
    co_await waiter.over;
    absl::Status status = co_await child().Discard(range);
    co_return status;
  }
  // What was done before it is flushed, however long it waits.
  Task<absl::Status> FlushLater() {
    Waiter waiter(*this, Operation::kFlush);
    co_await waiter.over;
    absl::Status status = co_await child().Flush();
    co_return status;
  }
  Task<absl::StatusOr<ExtentList>> BlockStatusLater(ByteRange range, std::size_t max_extents) {
    Waiter waiter(*this, Operation::kBlockStatus);
    co_await waiter.over;
    absl::StatusOr<ExtentList> extents = co_await child().BlockStatus(range, max_extents);
    co_return extents;
  }

  DelayOptions options_;
  std::mt19937_64 random_;
  uint64_t delayed_ = 0;
  std::map<uint64_t, Waiter*> waiting_;  // in the order of their arrival
};

}  // namespace

std::unique_ptr<LiveFilter<DelayOptions>> NewDelay(block::Node& child, Environment environment,
                                                   const DelayOptions& options) {
  return std::make_unique<Delay>(child, std::move(environment), options);
}

}  // namespace gabion::filters
