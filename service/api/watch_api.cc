#include "service/api/watch_api.h"

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

#include "service/domain/watcher.h"
#include "service/validate.h"

namespace gabion::service {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds kBookmarkInterval{30'000};
// How long a client has to take what it was sent, once the daemon ends.
constexpr milliseconds kDrainGrace{1'000};

milliseconds BookmarkInterval(const v1::WatchRequest& request) {
  if (!request.has_bookmark_interval()) return kBookmarkInterval;
  return milliseconds(request.bookmark_interval().seconds() * 1'000 +
                      request.bookmark_interval().nanos() / 1'000'000);
}

}  // namespace

// One stream. It is busy while a step is posted or runs on the executor, or a write is under way;
// the end of one starts the next, so that there is only ever one and nothing is read before what
// was told has been taken. When all is told it rests, until the feed, the timer, the client or the
// end of the daemon wakes it. Whoever is busy, and nobody else, ends it.
//
// Owned by itself until gRPC is done with it, and by steps and timers while they run, so that none
// of them finds it gone.
class WatchStream final : public grpc::ServerWriteReactor<v1::WatchResponse>,
                          public std::enable_shared_from_this<WatchStream> {
 public:
  WatchStream(WatchApi& api, grpc::CallbackServerContext* context, const v1::WatchRequest& request)
      : under_way_(api.calls_), api_(api), context_(context), request_(request) {}

  // `draining`: it is to end at once, and tells nothing.
  void Begin(bool draining) {
    self_ = shared_from_this();
    if (draining) return Drain();
    subscription_ = api_.sources_.feed.Subscribe([this] { Wake(); });
    Wake();
  }

  void Drain() {
    {
      const std::lock_guard lock(mutex_);
      if (done_) return;
      draining_ = true;
      drain_timer_ = api_.timers_.After(kDrainGrace, [weak = weak_from_this()] {
        if (const auto stream = weak.lock()) stream->CutOff();
      });
    }
    Wake();
  }

  void OnWriteDone(bool ok) override {
    if (!ok) SetCancelled();
    PostStep();
  }

  void OnCancel() override {
    SetCancelled();
    Wake();
  }

  void OnDone() override {
    api_.sources_.feed.Unsubscribe(subscription_);
    api_.Forget(this);
    {
      const std::lock_guard lock(mutex_);
      done_ = true;
      api_.timers_.Cancel(timer_);
      api_.timers_.Cancel(drain_timer_);
    }
    const std::shared_ptr<WatchStream> last = std::move(self_);
  }

 private:
  void SetCancelled() {
    const std::lock_guard lock(mutex_);
    cancelled_ = true;
  }

  void Wake() {
    {
      const std::lock_guard lock(mutex_);
      woken_ = true;
      if (busy_ || finished_) return;
      busy_ = true;
    }
    PostStep();
  }

  void PostStep() {
    const auto step = [stream = shared_from_this()] { stream->Step(); };
    const bool begins = watch_ == nullptr;
    const absl::Status posted =
        begins ? api_.calls_.Begin(Executor::Lane::kReads, step) : api_.calls_.GoOn(step);
    if (!posted.ok()) End(posted);
  }

  void Step() {
    {
      const std::lock_guard lock(mutex_);
      woken_ = false;
    }
    absl::Status status = CheckWanted();
    if (status.ok() && watch_ == nullptr) status = StartWatch();
    if (!status.ok()) return End(status);
    absl::StatusOr<std::optional<v1::WatchResponse>> message = watch_->Next();
    if (!message.ok()) return End(message.status());
    if (message->has_value()) return Tell(std::move(**message));
    if (!watch_->caught_up()) return PostStep();  // others have their turn in between
    if (TakeBookmarkDue()) return Tell(watch_->Bookmark());
    Rest();
  }

  absl::Status CheckWanted() {
    const std::lock_guard lock(mutex_);
    if (cancelled_) return absl::CancelledError("The client has gone.");
    if (draining_) return service::Draining();
    return absl::OkStatus();
  }

  absl::Status StartWatch() {
    absl::Status valid = PrepareRequest(&request_);
    if (!valid.ok()) return valid;
    const WatchSources& sources = api_.sources_;
    absl::StatusOr<std::unique_ptr<Watch>> watch =
        Watch::Start(sources.store, sources.views, request_);
    if (!watch.ok()) return watch.status();
    watch_ = *std::move(watch);
    const std::lock_guard lock(mutex_);
    interval_ = BookmarkInterval(request_);
    last_told_ = Clock::now();
    SetTimer(interval_);
    return absl::OkStatus();
  }

  void Tell(v1::WatchResponse message) {
    {
      const std::lock_guard lock(mutex_);
      last_told_ = Clock::now();
    }
    message_ = std::move(message);
    StartWrite(&message_);
  }

  void Rest() {
    {
      const std::lock_guard lock(mutex_);
      busy_ = woken_;
      if (!busy_) return;
    }
    PostStep();
  }

  // The watch is let go before the client learns that the stream has ended.
  void End(const absl::Status& status) {
    watch_.reset();
    {
      const std::lock_guard lock(mutex_);
      finished_ = true;
    }
    Finish(api_.calls_.Result("Watch", status));
  }

  // Under the lock.
  void SetTimer(milliseconds delay) {
    timer_ = api_.timers_.After(delay, [weak = weak_from_this()] {
      if (const auto stream = weak.lock()) stream->OnTimer();
    });
  }

  // A bookmark comes when nothing has been told for the whole interval.
  void OnTimer() {
    {
      const std::lock_guard lock(mutex_);
      if (finished_) return;
      const auto idle = std::chrono::duration_cast<milliseconds>(Clock::now() - last_told_);
      bookmark_due_ = idle >= interval_;
      SetTimer(bookmark_due_ ? interval_ : interval_ - idle);
      if (!bookmark_due_) return;
    }
    Wake();
  }

  bool TakeBookmarkDue() {
    const std::lock_guard lock(mutex_);
    return std::exchange(bookmark_due_, false);
  }

  // Also when it is finished: its end waits behind what the client does not take.
  void CutOff() {
    const std::lock_guard lock(mutex_);
    if (!done_) context_->TryCancel();
  }

  const Calls::UnderWay under_way_;
  WatchApi& api_;
  grpc::CallbackServerContext* const context_;  // until it is done
  std::shared_ptr<WatchStream> self_;
  uint64_t subscription_ = 0;

  // Of whoever is busy.
  v1::WatchRequest request_;
  std::unique_ptr<service::Watch> watch_;
  v1::WatchResponse message_;

  std::mutex mutex_;  // guards what follows
  bool busy_ = false;
  bool woken_ = false;  // since the last step began
  bool cancelled_ = false;
  bool draining_ = false;
  bool finished_ = false;  // nothing more is told
  bool done_ = false;      // gRPC has let go of it
  bool bookmark_due_ = false;
  milliseconds interval_{0};
  Clock::time_point last_told_;
  uint64_t timer_ = 0;
  uint64_t drain_timer_ = 0;
};

grpc::ServerWriteReactor<v1::WatchResponse>* WatchApi::Watch(grpc::CallbackServerContext* context,
                                                             const v1::WatchRequest* request) {
  const auto stream = std::make_shared<WatchStream>(*this, context, *request);
  // Together, so that the end of the daemon finds it whole.
  const std::lock_guard lock(mutex_);
  streams_.insert(stream.get());
  stream->Begin(draining_);
  return stream.get();
}

void WatchApi::Drain() {
  const std::lock_guard lock(mutex_);
  draining_ = true;
  for (WatchStream* const stream : streams_) stream->Drain();
}

void WatchApi::Forget(WatchStream* stream) {
  const std::lock_guard lock(mutex_);
  streams_.erase(stream);
}

}  // namespace gabion::service
