#include "engine/filters/throttle.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "engine/filters/throttling/budget.h"
#include "engine/filters/throttling/line.h"

namespace gabion::filters {
namespace {

using block::WriteOptions;
using block::ZeroOptions;
using throttling::Budget;
using throttling::Direction;
using throttling::Line;
using throttling::Waits;

// Budgets live as long as somebody draws on them. Requests use the generation only, which tells a
// throttle that there is a newer budget.
class Group final : public ThrottleGroup {
 public:
  explicit Group(const ThrottleOptions& options) { Begin(options); }

  void Configure(const ThrottleOptions& options) override {
    const std::lock_guard lock(mutex_);
    if (budgets_.back().budget->options() == options) return;
    Begin(options);
    Forget();
  }

  // Of the newest budget.
  uint64_t generation() const { return generation_.load(std::memory_order_relaxed); }

  // The newest budget; given back by Release().
  Budget& Acquire() {
    const std::lock_guard lock(mutex_);
    ++budgets_.back().users;
    return *budgets_.back().budget;
  }
  void Release(const Budget& budget) {
    const std::lock_guard lock(mutex_);
    for (Used& used : budgets_) {
      if (used.budget.get() == &budget) --used.users;
    }
    Forget();
  }

 private:
  struct Used {
    std::unique_ptr<Budget> budget;
    uint64_t users = 0;
  };

  void Begin(const ThrottleOptions& options) {
    const uint64_t generation = generation_.load(std::memory_order_relaxed) + 1;
    budgets_.push_back(Used{std::make_unique<Budget>(options, generation)});
    generation_.store(generation, std::memory_order_relaxed);
  }
  void Forget() {
    const Budget* const newest = budgets_.back().budget.get();
    std::erase_if(budgets_, [newest](const Used& used) {
      return used.users == 0 && used.budget.get() != newest;
    });
  }

  std::atomic<uint64_t> generation_ = 0;
  std::mutex mutex_;
  std::vector<Used> budgets_;  // guarded by mutex_; the newest is the last
};

class Throttle final : public LiveFilter<ThrottleOptions> {
 public:
  Throttle(block::Node& child_node, Environment environment_of_it, Group& group)
      : LiveFilter(child_node, std::move(environment_of_it)),
        group_(group),
        budget_(&group.Acquire()) {
    UseBudget();
  }
  ~Throttle() override {
    // The lines let go of the budget first.
    for (std::unique_ptr<Line>& line : lines_) line.reset();
    if (no_limits_ == nullptr) group_.Release(*budget_);
  }

  void Configure(const ThrottleOptions& options) override {
    group_.Configure(options);
    FollowGroup();
  }

  void Hurry() override {
    if (no_limits_ != nullptr) return;
    no_limits_ = std::make_unique<Budget>(ThrottleOptions(), 0);
    Budget& old = *budget_;
    Follow(*no_limits_, old);
  }

  void TakeOver(Filter& before) override {
    const auto& other = static_cast<const Throttle&>(before);
    arrived_ = other.arrived_;
    waits_ = other.waits_;
  }

  Statistics GetStatistics() const override {
    Statistics statistics;
    statistics.counters.push_back({"requests", arrived_});
    uint64_t waited = 0;
    Statistics::Histogram times{.name = "wait_time_us", .sum = waits_.sum_us};
    for (std::size_t i = 0; i < Waits::kBounds.size(); ++i) {
      times.buckets.push_back({Waits::kBounds[i], waits_.counts[i]});
      waited += waits_.counts[i];
    }
    statistics.counters.push_back({"waited", waited});
    statistics.histograms.push_back(std::move(times));
    return statistics;
  }

 private:
  Task<absl::Status> DoRead(ByteRange range, MutableBytes dst) override {
    if (MayGo(Direction::kRead, range)) return child().Read(range, dst);
    return ReadLater(range, dst);
  }
  Task<absl::Status> DoWrite(ByteRange range, Bytes src, WriteOptions options) override {
    if (MayGo(Direction::kWrite, range)) return child().Write(range, src, options);
    return WriteLater(range, src, options);
  }
  Task<absl::Status> DoZero(ByteRange range, ZeroOptions options) override {
    if (MayGo(Direction::kWrite, range)) return child().Zero(range, options);
    return ZeroLater(range, options);
  }
  Task<absl::Status> DoDiscard(ByteRange range) override {
    if (MayGo(Direction::kWrite, range)) return child().Discard(range);
    return DiscardLater(range);
  }

  // After MayGo() has said no.
  Task<absl::Status> ReadLater(ByteRange range, MutableBytes dst) {
    co_await LineOf(Direction::kRead).Turn();
    absl::Status status = co_await child().Read(range, dst);
    co_return status;
  }
  Task<absl::Status> WriteLater(ByteRange range, Bytes src, WriteOptions options) {
    co_await LineOf(Direction::kWrite).Turn();
    absl::Status status = co_await child().Write(range, src, options);
    co_return status;
  }
  Task<absl::Status> ZeroLater(ByteRange range, ZeroOptions options) {
    co_await LineOf(Direction::kWrite).Turn();
    absl::Status status = co_await child().Zero(range, options);
    co_return status;
  }
  Task<absl::Status> DiscardLater(ByteRange range) {
    co_await LineOf(Direction::kWrite).Turn();
    absl::Status status = co_await child().Discard(range);
    co_return status;
  }

  Line& LineOf(Direction direction) { return *lines_[budget_->LineOf(direction)]; }

  bool MayGo(Direction direction, ByteRange range) {
    FollowGroup();
    ++arrived_;
    Line& line = LineOf(direction);
    if (!budget_->Limits(direction) && line.empty()) return true;
    return line.Join(direction, range.length.value, arrived_);
  }

  // Takes the group's newest budget; whoever waits begins anew with it.
  void FollowGroup() {
    if (group_.generation() == budget_->generation() || no_limits_ != nullptr) return;
    Budget& old = *budget_;
    Follow(group_.Acquire(), old);
  }

  void Follow(Budget& next, const Budget& old) {
    budget_ = &next;
    std::vector<Line::Request> requests;
    for (const std::unique_ptr<Line>& line : lines_) {
      for (const Line::Request& request : line->TakeAll()) requests.push_back(request);
    }
    std::sort(requests.begin(), requests.end(),
              [](const auto& a, const auto& b) { return a.number < b.number; });
    UseBudget();
    group_.Release(old);
    for (const Line::Request& request : requests) LineOf(request.direction).Return(request);
    for (const std::unique_ptr<Line>& line : lines_) line->Advance();
  }

  void UseBudget() {
    for (std::size_t i = 0; i < lines_.size(); ++i) lines_[i]->Use(*budget_, i);
  }

  std::unique_ptr<Line> NewLine() {
    return std::make_unique<Line>(environment().ready, environment().clock, waits_);
  }

  Group& group_;
  Budget* budget_;                     // the group's, or no_limits_
  std::unique_ptr<Budget> no_limits_;  // when it hurries
  Waits waits_;
  uint64_t arrived_ = 0;
  std::array<std::unique_ptr<Line>, 2> lines_ = {NewLine(), NewLine()};
};

}  // namespace

std::unique_ptr<ThrottleGroup> NewThrottleGroup(const ThrottleOptions& options) {
  return std::make_unique<Group>(options);
}

std::unique_ptr<LiveFilter<ThrottleOptions>> NewThrottle(block::Node& child,
                                                         Environment environment,
                                                         ThrottleGroup& group) {
  // The one kind of group that there is.
  return std::make_unique<Throttle>(child, std::move(environment), static_cast<Group&>(group));
}

}  // namespace gabion::filters
