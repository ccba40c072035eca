#include "engine/filters/observe.h"

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/text.h"

namespace gabion::filters {
namespace {

using block::ExtentList;
using block::WriteOptions;
using block::ZeroOptions;
using runtime::Duration;
using runtime::Instant;

constexpr std::size_t kOperations = 7;
constexpr std::array<std::string_view, kOperations> kNames = {
    "read", "write", "zero", "discard", "flush", "cache", "block_status"};

constexpr std::size_t IndexOf(Operation operation) { return static_cast<std::size_t>(operation); }

// A request as it is told of.
struct Request {
  Operation operation = Operation::kRead;
  ByteRange range;
  ZeroOptions options{};  // a write's `durable` is here, too
  Instant begin;
};

const absl::Status& StatusOf(const absl::Status& status) { return status; }
const absl::Status& StatusOf(const absl::StatusOr<ExtentList>& extents) { return extents.status(); }

// Forwards every request, and tells what came of it and how long it took. Requests that are done at
// once need no frame.
template <typename Base>
class Observer : public Base {
 protected:
  using Base::Base;

 private:
  virtual void Saw(const Request& request, Duration took, const absl::Status& status) = 0;

  Request Begin(Operation operation, ByteRange range, ZeroOptions options = {}) {
    return Request{operation, range, options, this->environment().clock.Now()};
  }

  template <typename T>
  void End(const Request& request, const T& result) {
    Saw(request, this->environment().clock.Now() - request.begin, StatusOf(result));
  }

  template <typename T>
  Task<T> Watch(Request request, Task<T> task) {
    if (!task.done()) return WatchOn(request, std::move(task));
    T result = task.Take();
    End(request, result);
    return result;
  }

  template <typename T>
  Task<T> WatchOn(Request request, Task<T> task) {
    T result = co_await task;
    End(request, result);
    co_return result;
  }

  Task<absl::Status> DoRead(ByteRange range, MutableBytes dst) final {
    const Request request = Begin(Operation::kRead, range);
    return Watch(request, this->child().Read(range, dst));
  }
  Task<absl::Status> DoWrite(ByteRange range, Bytes src, WriteOptions options) final {
    const Request request = Begin(Operation::kWrite, range, {.durable = options.durable});
    return Watch(request, this->child().Write(range, src, options));
  }
  Task<absl::Status> DoZero(ByteRange range, ZeroOptions options) final {
    const Request request = Begin(Operation::kZero, range, options);
    return Watch(request, this->child().Zero(range, options));
  }
  Task<absl::Status> DoDiscard(ByteRange range) final {
    const Request request = Begin(Operation::kDiscard, range);
    return Watch(request, this->child().Discard(range));
  }
  Task<absl::Status> DoFlush() final {
    const Request request = Begin(Operation::kFlush, {});
    return Watch(request, this->child().Flush());
  }
  Task<absl::Status> DoCache(ByteRange range) final {
    const Request request = Begin(Operation::kCache, range);
    return Watch(request, this->child().Cache(range));
  }
  Task<absl::StatusOr<ExtentList>> DoBlockStatus(ByteRange range, std::size_t max_extents) final {
    const Request request = Begin(Operation::kBlockStatus, range);
    return Watch(request, this->child().BlockStatus(range, max_extents));
  }
};

// ---- log

// "write 4096+512 durable": the operation, where it has one its range, and its flags.
std::string Describe(const Request& request) {
  if (request.operation == Operation::kFlush) return "flush";
  std::string text = absl::StrCat(AsAbsl(kNames[IndexOf(request.operation)]), " ",
                                  request.range.offset.value, "+", request.range.length.value);
  if (request.options.durable) text += " durable";
  if (!request.options.may_unmap) text += " no_hole";
  if (request.options.fast_only) text += " fast_only";
  return text;
}

std::string Describe(const absl::Status& status) {
  if (status.ok()) return "OK";
  return absl::StrCat(absl::StatusCodeToString(status.code()), ": ", status.message());
}

class Log final : public Observer<LiveFilter<LogOptions>> {
 public:
  Log(block::Node& child, Environment environment, const LogOptions& options)
      : Observer(child, std::move(environment)), options_(options) {}

  void Configure(const LogOptions& options) override { options_ = options; }

 private:
  void Saw(const Request& request, Duration took, const absl::Status& status) override {
    if (status.ok() && !Tells(took)) return;
    const int64_t us = std::chrono::duration_cast<std::chrono::microseconds>(took).count();
    const std::string line = absl::StrCat(environment().where, ": ", Describe(request), " in ", us,
                                          " us: ", Describe(status));
    environment().logger.Log(status.ok() ? LogLevel::kInfo : LogLevel::kWarning, "filters", line);
  }

  // Whether a request that succeeded is told.
  bool Tells(Duration took) {
    if (options_.failures_only || took < options_.slower_than) return false;
    const uint32_t one_in = std::max<uint32_t>(1, options_.sample_one_in);
    return seen_++ % one_in == 0;
  }

  LogOptions options_;
  uint64_t seen_ = 0;  // that are slow enough
};

// ---- statistics

// Counts values by powers of two: bounds unit, 2 unit, 4 unit, ..., and one bucket for the rest.
template <std::size_t kBounds>
class Buckets {
 public:
  explicit Buckets(uint64_t unit) : unit_(unit) {}

  void Add(uint64_t value) {
    const uint64_t units = value / unit_ + (value % unit_ == 0 ? 0 : 1);
    const auto bucket = static_cast<std::size_t>(units <= 1 ? 0 : std::bit_width(units - 1));
    ++counts_[std::min(bucket, kBounds)];
    sum_ += value;
  }

  // The bounds and the sum are told in `divisor` times larger units.
  Statistics::Histogram Tell(std::string name, uint64_t divisor) const {
    Statistics::Histogram histogram{std::move(name), {}, sum_ / divisor};
    for (std::size_t i = 0; i < kBounds; ++i) {
      histogram.buckets.push_back({(unit_ << i) / divisor, counts_[i]});
    }
    histogram.buckets.push_back({~uint64_t{0}, counts_[kBounds]});
    return histogram;
  }

 private:
  uint64_t unit_;
  std::array<uint64_t, kBounds + 1> counts_{};
  uint64_t sum_ = 0;
};

constexpr uint64_t kNsPerUs = 1000;

struct Measured {
  uint64_t requests = 0;
  uint64_t bytes = 0;
  uint64_t failures = 0;
  Buckets<26> time_ns{kNsPerUs};  // 1 us to 2^25 us
  Buckets<18> length{512};        // to 2^26
};

class Stats final : public Observer<Filter> {
 public:
  Stats(block::Node& child, Environment environment) : Observer(child, std::move(environment)) {}

  void TakeOver(Filter& before) override {
    measured_ = static_cast<const Stats&>(before).measured_;
  }

  Statistics GetStatistics() const override {
    Statistics statistics;
    for (std::size_t i = 0; i < kOperations; ++i) {
      const Measured& measured = measured_[i];
      const std::string name(kNames[i]);
      statistics.counters.push_back({name + "_requests", measured.requests});
      statistics.counters.push_back({name + "_bytes", measured.bytes});
      statistics.counters.push_back({name + "_failures", measured.failures});
      statistics.histograms.push_back(measured.time_ns.Tell(name + "_time_us", kNsPerUs));
      if (i == IndexOf(Operation::kFlush)) continue;  // has no length
      statistics.histograms.push_back(measured.length.Tell(name + "_length_bytes", 1));
    }
    return statistics;
  }

 private:
  void Saw(const Request& request, Duration took, const absl::Status& status) override {
    Measured& measured = measured_[IndexOf(request.operation)];
    ++measured.requests;
    if (status.ok()) {
      measured.bytes += request.range.length.value;
    } else {
      ++measured.failures;
    }
    measured.time_ns.Add(static_cast<uint64_t>(took.count()));
    measured.length.Add(request.range.length.value);
  }

  std::array<Measured, kOperations> measured_;
};

}  // namespace

std::unique_ptr<LiveFilter<LogOptions>> NewLog(block::Node& child, Environment environment,
                                               const LogOptions& options) {
  return std::make_unique<Log>(child, std::move(environment), options);
}

std::unique_ptr<Filter> NewStats(block::Node& child, Environment environment) {
  return std::make_unique<Stats>(child, std::move(environment));
}

}  // namespace gabion::filters
