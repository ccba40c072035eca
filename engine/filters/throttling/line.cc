#include "engine/filters/throttling/line.h"

#include <algorithm>
#include <utility>

#include "engine/base/check.h"

namespace gabion::filters::throttling {
namespace {

using runtime::Duration;
using runtime::Instant;

// What a line takes at once: pieces of all lines together last for half of what those who have had
// less find in the buckets (Turns), and a line alone takes twice as much.
constexpr int64_t kPieceAlone = 50'000'000;
constexpr int64_t kPiecesTogether = 25'000'000;
constexpr int64_t kSmallestPiece = 100'000;

}  // namespace

void Waits::Add(Duration time) {
  const auto us =
      static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(time).count());
  ++counts[std::lower_bound(kBounds.begin(), kBounds.end(), us) - kBounds.begin()];
  sum_us += us;
}

Line::~Line() {
  CHECK(requests_.empty());
  CHECK_EQ(waits_.going, 0u);
  clock_.Cancel(*this);
  // Whoever replaces the throttle does not get rid of what it owes.
  if (budget_ == nullptr) return;
  for (std::size_t i = 0; i < kBuckets; ++i) {
    if (owed_[i] > 0) budget_->bucket(i).Take(clock_.Now().since_start.count(), owed_[i]);
  }
}

void Line::Use(Budget& budget, std::size_t line) {
  CHECK(requests_.empty());
  clock_.Cancel(*this);
  budget_ = &budget;
  turns_ = &budget.turns(line);
  place_ = turns_->NewPlace();
  fractions_ = {};
  begun_ = false;
  owed_ = {};
  rest_ = {};
  taken_ = false;
}

std::deque<Line::Request> Line::TakeAll() {
  begun_ = false;
  return std::exchange(requests_, {});
}

bool Line::Join(Direction direction, uint64_t bytes, uint64_t number) {
  requests_.push_back(Request{direction, bytes, number, clock_.Now()});
  if (taken_) return false;  // the timer is set
  Advance();
  if (!passed_ || waits_.going > 0) return false;
  passed_ = false;
  return true;
}

void Line::Await(std::coroutine_handle<> waiter) {
  if (std::exchange(passed_, false)) {
    ++waits_.going;
    ready_.Push(waiter);  // behind those that were let go before
    return;
  }
  requests_.back().waiter = waiter;
}

void Line::Fire() { Advance(); }

void Line::Advance() {
  const Instant now = clock_.Now();
  while (true) {
    if (taken_) {
      if (due_ > now) {
        clock_.Schedule(*this, due_);
        return;
      }
      taken_ = false;
    }
    if (Owes()) {
      TakePiece(now.since_start.count());
    } else if (begun_) {
      LetFirstGo(now);
    } else if (!requests_.empty()) {
      BeginFirst();
    } else {
      return;
    }
  }
}

bool Line::Owes() const {
  return std::any_of(owed_.begin(), owed_.end(), [](int64_t cost) { return cost > 0; });
}

void Line::BeginFirst() {
  const Request& first = requests_.front();
  begun_ = true;
  owed_ = budget_->CostsOf(first.direction, first.bytes, fractions_);
  for (std::size_t i = 0; i < kBuckets; ++i) {
    const int64_t before = std::min(owed_[i], budget_->bucket(i).capacity());
    rest_[i] = owed_[i] - before;
    owed_[i] = before;
  }
}

void Line::LetFirstGo(Instant now) {
  const Request first = requests_.front();
  requests_.pop_front();
  begun_ = false;
  owed_ = rest_;
  if (first.waiter) {
    waits_.Add(now - first.since);
    ++waits_.going;
    ready_.Push(first.waiter);
  } else {
    passed_ = true;
  }
}

void Line::TakePiece(int64_t now) {
  const uint32_t lines = turns_->Join(place_, now);
  const int64_t most = lines == 1 ? kPieceAlone : std::max(kSmallestPiece, kPiecesTogether / lines);
  int64_t piece = 0;  // of the bucket that has the least left
  for (std::size_t i = 0; i < kBuckets; ++i) {
    if (owed_[i] > 0 && budget_->bucket(i).TakeSpare(now, owed_[i])) owed_[i] = 0;
    piece = std::max(piece, std::min(owed_[i], most));
  }
  if (piece == 0) return;
  const int64_t wait = turns_->Wait(place_, lines, piece);
  int64_t due = now;
  for (std::size_t i = 0; i < kBuckets; ++i) {
    const int64_t part = std::min(owed_[i], most);
    if (part == 0) continue;
    due = std::max(due, budget_->bucket(i).Take(now, part) + wait);
    owed_[i] -= part;
  }
  taken_ = true;
  due_ = Instant{Duration(due)};
}

}  // namespace gabion::filters::throttling
