#include "engine/runtime/reactor.h"

#include <algorithm>
#include <asio.hpp>
#include <map>
#include <unordered_map>
#include <utility>

#include "engine/base/check.h"

namespace gabion::runtime {
namespace {

// A watched descriptor that belongs to a poller: Asio must not close it.
class Watch {
 public:
  Watch(asio::io_context& io, Poller& poller) : poller_(poller), descriptor_(io) {
    if (poller.wake_fd() >= 0) descriptor_.assign(poller.wake_fd());
  }
  ~Watch() {
    if (descriptor_.is_open()) descriptor_.release();
  }

  Poller& poller() { return poller_; }

  void Arm(bool& woken) {
    if (armed_ || !descriptor_.is_open()) return;
    armed_ = true;
    descriptor_.async_wait(asio::posix::stream_descriptor::wait_read,
                           [this, &woken](const asio::error_code& error) {
                             if (error == asio::error::operation_aborted) return;
                             armed_ = false;
                             woken = true;
                           });
  }

 private:
  Poller& poller_;
  asio::posix::stream_descriptor descriptor_;
  bool armed_ = false;
};

}  // namespace

class Reactor::Impl final : public Clock {
 public:
  explicit Impl(Options options)
      : options_(options), io_(ASIO_CONCURRENCY_HINT_UNSAFE), work_(io_.get_executor()) {
    CHECK(options.poll_before_sleep >= Duration::zero());
    window_ = options.poll_before_sleep;
  }

  ~Impl() override { CHECK(hooks_.empty()); }

  ReadyQueue& ready() override { return ready_; }
  asio::io_context& io() { return io_; }

  Instant Now() override { return Instant{std::chrono::steady_clock::now().time_since_epoch()}; }

  void Schedule(Timer& timer, Instant deadline) override {
    Cancel(timer);
    by_timer_[&timer] = by_time_.emplace(deadline, &timer);
  }

  void Cancel(Timer& timer) override {
    auto found = by_timer_.find(&timer);
    if (found == by_timer_.end()) return;
    by_time_.erase(found->second);
    by_timer_.erase(found);
  }

  void AddPoller(Poller& poller) { watches_.push_back(std::make_unique<Watch>(io_, poller)); }

  void RemovePoller(Poller& poller) {
    std::erase_if(watches_, [&](const auto& watch) { return &watch->poller() == &poller; });
  }

  void AtTurnEnd(TurnHook& hook) { hooks_.push_back(&hook); }

  void Run() {
    stopped_ = false;
    while (!stopped_) RunTurn(true);
  }

  void Stop() { stopped_ = true; }

  bool RunTurn(bool may_sleep) {
    bool worked = io_.poll() > 0;
    for (std::size_t i = 0; i < watches_.size(); ++i) worked |= watches_[i]->poller().Poll();
    if (!by_time_.empty()) worked |= FireTimers();
    // A wake-up often leads to another: some rounds of them share one turn, and so one send.
    for (int round = 0; round < kRoundsPerTurn && ready_.RunOnce() > 0; ++round) worked = true;
    worked |= RunHooks();
    if (worked || !ready_.empty()) {
      idle_since_.reset();
      return true;
    }
    if (may_sleep && !stopped_) PollOrSleep();
    return false;
  }

 private:
  static constexpr int kRoundsPerTurn = 8;
  static constexpr Duration kSmallestWindow = std::chrono::microseconds(4);

  bool FireTimers() {
    bool fired = false;
    const Instant now = Now();
    while (!by_time_.empty() && by_time_.begin()->first <= now) {
      Timer* timer = by_time_.begin()->second;
      Cancel(*timer);
      timer->Fire();
      fired = true;
    }
    return fired;
  }

  bool RunHooks() {
    if (hooks_.empty()) return false;
    running_hooks_.swap(hooks_);
    for (TurnHook* hook : running_hooks_) hook->OnTurnEnd();
    running_hooks_.clear();
    return true;
  }

  void PollOrSleep() {
    const Instant now = Now();
    if (!idle_since_.has_value()) idle_since_ = now;
    if (now - *idle_since_ < window_) return;
    for (auto& watch : watches_) {
      if (!watch->poller().PrepareToSleep()) return;
    }
    for (auto& watch : watches_) watch->Arm(woken_);
    Sleep(now);
    Adapt(Now() - now);
    idle_since_.reset();
  }

  void Sleep(Instant now) {
    if (by_time_.empty()) {
      io_.run_one();
    } else {
      const Duration wait = std::max(by_time_.begin()->first - now, Duration::zero());
      io_.run_one_for(wait);
    }
  }

  // Polling pays if the sleep that it would have saved was short: then look longer the next time,
  // else less.
  void Adapt(Duration slept) {
    if (slept <= options_.poll_before_sleep) {
      window_ = std::min(std::max(window_ * 2, kSmallestWindow), options_.poll_before_sleep);
    } else {
      window_ = window_ / 2 < kSmallestWindow ? Duration::zero() : window_ / 2;
    }
  }

  const Options options_;
  asio::io_context io_;
  asio::executor_work_guard<asio::io_context::executor_type> work_;
  ReadyQueue ready_;
  std::vector<std::unique_ptr<Watch>> watches_;
  std::vector<TurnHook*> hooks_;
  std::vector<TurnHook*> running_hooks_;
  std::multimap<Instant, Timer*> by_time_;
  std::unordered_map<Timer*, std::multimap<Instant, Timer*>::iterator> by_timer_;
  std::optional<Instant> idle_since_;
  Duration window_;
  bool woken_ = false;
  bool stopped_ = false;
};

Reactor::Reactor(Options options) : impl_(std::make_unique<Impl>(options)) {}
Reactor::~Reactor() = default;

ReadyQueue& Reactor::ready() { return impl_->ready(); }
Clock& Reactor::clock() { return *impl_; }
asio::io_context& Reactor::io_context() { return impl_->io(); }
void Reactor::AddPoller(Poller& poller) { impl_->AddPoller(poller); }
void Reactor::RemovePoller(Poller& poller) { impl_->RemovePoller(poller); }
void Reactor::AtTurnEnd(TurnHook& hook) { impl_->AtTurnEnd(hook); }
void Reactor::Run() { impl_->Run(); }
void Reactor::Stop() { impl_->Stop(); }
bool Reactor::RunTurn(bool may_sleep) { return impl_->RunTurn(may_sleep); }

}  // namespace gabion::runtime
