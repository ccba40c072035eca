#include "engine/filters/fault.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <optional>
#include <random>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/align.h"
#include "engine/base/check.h"
#include "engine/base/text.h"

namespace gabion::filters {
namespace {

using block::ExtentList;
using block::Limits;
using block::WriteOptions;
using block::ZeroOptions;

constexpr uint32_t kFirstState = 1;
constexpr ByteRange kEverything = Range(0, ~uint64_t{0});

uint64_t EndOf(const ByteRange& range) {
  const uint64_t most = ~uint64_t{0} - range.offset.value;
  return range.offset.value + std::min(range.length.value, most);
}

bool Touch(const ByteRange& a, const ByteRange& b) {
  return a.offset.value < EndOf(b) && b.offset.value < EndOf(a);
}

// One short lock for each request while there are rules: whoever injects faults does not measure
// speed.
class State final : public FaultState {
 public:
  explicit State(const FaultOptions& options) { Begin(options); }

  void Configure(const FaultOptions& options) override {
    const std::lock_guard lock(mutex_);
    if (options_ != options) Begin(options);
  }

  // What becomes of a request: OK, or the error that it ends with.
  absl::Status Decide(Operation operation, ByteRange range) {
    if (!has_rules_.load(std::memory_order_relaxed)) return absl::OkStatus();
    const std::lock_guard lock(mutex_);
    for (std::size_t i = 0; i < options_.rules.size(); ++i) {
      const FaultRule& rule = options_.rules[i];
      if (!Matches(rule, operation, range) || !Hits(rule, counts_[i])) continue;
      if (rule.new_state != 0) state_ = rule.new_state;
      if (rule.pass) break;
      return absl::Status(rule.error, AsAbsl(absl::StrCat("injected error (rule ", i, ")")));
    }
    return absl::OkStatus();
  }

  void AddTo(Statistics& statistics) const {
    const std::lock_guard lock(mutex_);
    for (std::size_t i = 0; i < counts_.size(); ++i) {
      statistics.counters.push_back({absl::StrCat("rule_", i, "_hits"), counts_[i].hits});
      statistics.counters.push_back({absl::StrCat("rule_", i, "_matches"), counts_[i].matches});
    }
    statistics.counters.push_back({"state", state_});
  }

 private:
  struct Counts {
    uint64_t matches = 0;
    uint64_t hits = 0;
  };

  void Begin(const FaultOptions& options) {
    options_ = options;
    counts_.assign(options.rules.size(), Counts{});
    state_ = kFirstState;
    random_.seed(options.seed != 0 ? options.seed : std::random_device()());
    has_rules_.store(!options.rules.empty(), std::memory_order_relaxed);
  }

  bool Matches(const FaultRule& rule, Operation operation, const ByteRange& range) const {
    return (rule.operations & Bit(operation)) != 0 && (rule.state == 0 || rule.state == state_) &&
           (operation == Operation::kFlush || Touch(rule.range, range));
  }

  // Counts a request that matches; true if the rule decides about it.
  bool Hits(const FaultRule& rule, Counts& counts) {
    ++counts.matches;
    if (counts.matches <= rule.skip_hits) return false;
    if (rule.max_hits != 0 && counts.hits >= rule.max_hits) return false;
    if (rule.probability < 1 &&
        std::uniform_real_distribution<double>()(random_) >= rule.probability) {
      return false;
    }
    ++counts.hits;
    return true;
  }

  std::atomic<bool> has_rules_ = false;
  mutable std::mutex mutex_;
  // Guarded by mutex_:
  FaultOptions options_;
  std::vector<Counts> counts_;
  uint32_t state_ = kFirstState;
  std::mt19937_64 random_;
};

Limits LimitsAbove(const Limits& child, uint64_t alignment, const std::string& entry_id) {
  Limits limits = child;
  if (alignment > child.alignment.value) {
    limits.alignment = ByteCount{alignment};
    limits.alignment_from = entry_id;
  }
  return limits;
}

class Fault final : public LiveFilter<FaultOptions> {
 public:
  Fault(block::Node& child_node, Environment environment_of_it, const std::string& entry_id,
        const FaultOptions& options, State& state)
      : LiveFilter(child_node, LimitsAbove(child_node.limits(), options.alignment, entry_id),
                   std::move(environment_of_it)),
        entry_id_(entry_id),
        alignment_(options.alignment),
        max_transfer_(options.max_transfer),
        max_zero_(options.max_zero),
        max_discard_(options.max_discard),
        state_(state) {
    CHECK(alignment_ == 0 || IsPowerOfTwo(alignment_));
  }

  void Configure(const FaultOptions& options) override {
    max_transfer_ = options.max_transfer;
    max_zero_ = options.max_zero;
    max_discard_ = options.max_discard;
    state_.Configure(options);
  }

  void TakeOver(Filter& before) override {
    refused_too_long_ = static_cast<const Fault&>(before).refused_too_long_;
  }

  Statistics GetStatistics() const override {
    Statistics statistics;
    state_.AddTo(statistics);
    statistics.counters.push_back({"refused_too_long", refused_too_long_});
    return statistics;
  }

 private:
  Limits DeriveLimits(const Limits& child) const override {
    return LimitsAbove(child, alignment_, entry_id_);
  }

  Task<absl::Status> DoRead(ByteRange range, MutableBytes dst) override {
    absl::Status status = Decide(Operation::kRead, range, "read", "max_transfer", max_transfer_);
    return status.ok() ? child().Read(range, dst) : Task<absl::Status>(std::move(status));
  }
  Task<absl::Status> DoWrite(ByteRange range, Bytes src, WriteOptions options) override {
    absl::Status status = Decide(Operation::kWrite, range, "write", "max_transfer", max_transfer_);
    return status.ok() ? child().Write(range, src, options) : Task<absl::Status>(std::move(status));
  }
  Task<absl::Status> DoZero(ByteRange range, ZeroOptions options) override {
    absl::Status status = Decide(Operation::kZero, range, "zero", "max_zero", max_zero_);
    return status.ok() ? child().Zero(range, options) : Task<absl::Status>(std::move(status));
  }
  Task<absl::Status> DoDiscard(ByteRange range) override {
    absl::Status status =
        Decide(Operation::kDiscard, range, "discard", "max_discard", max_discard_);
    return status.ok() ? child().Discard(range) : Task<absl::Status>(std::move(status));
  }
  Task<absl::Status> DoFlush() override {
    absl::Status status = Decide(Operation::kFlush, kEverything);
    return status.ok() ? child().Flush() : Task<absl::Status>(std::move(status));
  }
  Task<absl::Status> DoCache(ByteRange range) override {
    absl::Status status = Decide(Operation::kCache, range);
    return status.ok() ? child().Cache(range) : Task<absl::Status>(std::move(status));
  }
  Task<absl::StatusOr<ExtentList>> DoBlockStatus(ByteRange range,
                                                 std::size_t max_extents) override {
    absl::Status status = Decide(Operation::kBlockStatus, range);
    if (!status.ok()) return absl::StatusOr<ExtentList>(std::move(status));
    return child().BlockStatus(range, max_extents);
  }

  // OK, or what the request ends with. A request that is too long does not reach the rules.
  absl::Status Decide(Operation operation, ByteRange range, std::string_view what,
                      std::string_view limit_name, uint64_t limit) {
    if (limit != 0 && range.length.value > limit) {
      ++refused_too_long_;
      return Blame(absl::InvalidArgumentError(
          absl::StrCat(AsAbsl(what), " of ", range.length.value, " bytes at ", range.offset.value,
                       " is longer than ", AsAbsl(limit_name), ", ", limit, " bytes")));
    }
    return Decide(operation, range);
  }
  absl::Status Decide(Operation operation, ByteRange range) {
    absl::Status status = state_.Decide(operation, range);
    return status.ok() ? status : Blame(status);
  }

  const std::string entry_id_;
  const uint64_t alignment_;
  uint64_t max_transfer_;
  uint64_t max_zero_;
  uint64_t max_discard_;
  State& state_;
  uint64_t refused_too_long_ = 0;
};

}  // namespace

std::unique_ptr<FaultState> NewFaultState(const FaultOptions& options) {
  return std::make_unique<State>(options);
}

std::unique_ptr<LiveFilter<FaultOptions>> NewFault(block::Node& child, Environment environment,
                                                   const std::string& entry_id,
                                                   const FaultOptions& options, FaultState& state) {
  // The one kind of state that there is.
  return std::make_unique<Fault>(child, std::move(environment), entry_id, options,
                                 static_cast<State&>(state));
}

}  // namespace gabion::filters
