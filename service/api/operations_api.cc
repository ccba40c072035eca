#include "service/api/operations_api.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/status/status.h"
#include "engine/base/status_macros.h"
#include "google/protobuf/duration.pb.h"
#include "service/errors.h"

namespace gabion::service {

using google::longrunning::Operation;
using google::longrunning::WaitOperationRequest;

namespace {

constexpr std::string_view kWaitMethod = "google.longrunning.Operations.WaitOperation";
constexpr std::chrono::hours kLongestWait(1);

absl::StatusOr<google::protobuf::Empty> EmptyOr(const absl::Status& status) {
  if (!status.ok()) return status;
  return google::protobuf::Empty();
}

// The timeout of a checked request.
absl::StatusOr<Timers::Clock::duration> TimeoutOf(const WaitOperationRequest& request) {
  if (!request.has_timeout()) return kLongestWait;
  const google::protobuf::Duration& timeout = request.timeout();
  if (timeout.seconds() < 0 || timeout.nanos() < 0) {
    constexpr std::string_view kMessage = "A timeout is not negative.";
    return Error(reason::kFieldOutOfRange, kMessage)
        .Metadata("value", std::to_string(timeout.seconds()) + "s")
        .Metadata("allowed", ">= 0s")
        .Field("timeout", kMessage)
        .Build();
  }
  const int64_t most = std::chrono::seconds(kLongestWait).count();
  return std::chrono::seconds(std::min(timeout.seconds(), most)) +
         std::chrono::nanoseconds(timeout.nanos());
}

Timers::Clock::duration Until(std::chrono::system_clock::time_point deadline) {
  const auto now = std::chrono::system_clock::now();
  if (deadline - now > kLongestWait) return kLongestWait;
  const auto left = std::chrono::duration_cast<Timers::Clock::duration>(deadline - now);
  return std::max(left - kAnswerBefore, Timers::Clock::duration::zero());
}

}  // namespace

// One call of WaitOperation. While it waits it has no thread: the end of the operation, of the time
// or of the call, whichever comes first, makes the executor answer. Lives until gRPC has done with
// it and nobody can end it any more.
class OperationsApi::Wait final : public grpc::ServerUnaryReactor,
                                  public std::enable_shared_from_this<Wait> {
 public:
  Wait(OperationsApi& api, grpc::CallbackServerContext* context,
       const WaitOperationRequest* request, Operation* response)
      : under_way_(api.calls_),
        api_(api),
        request_(*request),
        deadline_(context->deadline()),
        response_(response) {}

  // On the executor, or, if that does not take it, with the error of that anywhere.
  void Begin(absl::Status status = absl::OkStatus()) {
    if (status.ok()) status = Arm();
    {
      const std::lock_guard lock(mutex_);
      begun_ = true;
      if (!ended_ && status.ok()) return;
      if (!std::exchange(ended_, true)) why_ = status;
    }
    Answer();
  }

  // The first call counts. Any thread; does not block.
  void End(const absl::Status& why) {
    {
      const std::lock_guard lock(mutex_);
      if (std::exchange(ended_, true)) return;
      why_ = why;
      if (!begun_) return;  // Begin() sees it
    }
    const absl::Status answers = api_.calls_.GoOn([self = shared_from_this()] { self->Answer(); });
    if (!answers.ok()) Finish(api_.calls_.Result(kWaitMethod, answers));
  }

  void OnCancel() override { End(absl::CancelledError("The caller has gone.")); }
  void OnDone() override { api_.Remove(shared_from_this()); }

 private:
  // Sees to it that it will be ended.
  absl::Status Arm() {
    WaitOperationRequest checked = request_;
    Call call;
    RETURN_IF_ERROR(Prepare(MethodNamed(kWaitMethod), &checked, &call));
    ASSIGN_OR_RETURN(const Timers::Clock::duration timeout, TimeoutOf(checked));
    RETURN_IF_ERROR(api_.operations_.Get(checked.name()).status());
    const auto end = [self = shared_from_this()] { self->End(absl::OkStatus()); };
    const uint64_t timer = api_.timers_.After(std::min(timeout, Until(deadline_)), end);
    const uint64_t id = api_.operations_.WhenDone(checked.name(), end);
    const std::lock_guard lock(mutex_);
    timer_ = timer;
    id_ = id;
    return absl::OkStatus();
  }

  // Once it has begun and ended, so that nobody else touches it any more.
  void Answer() {
    api_.timers_.Cancel(timer_);
    api_.operations_.Withdraw(id_);
    if (why_.ok()) {
      absl::StatusOr<Operation> operation = api_.operations_.Get(request_.name());
      why_ = operation.status();
      if (why_.ok()) *response_ = *std::move(operation);
    }
    Finish(api_.calls_.Result(kWaitMethod, why_));
  }

  const Calls::UnderWay under_way_;
  OperationsApi& api_;
  const WaitOperationRequest request_;
  const std::chrono::system_clock::time_point deadline_;
  Operation* const response_;  // lives until it is finished
  std::mutex mutex_;
  bool begun_ = false;  // the call is not finished before
  bool ended_ = false;
  absl::Status why_;    // it ended; OK: it is answered as it is then
  uint64_t timer_ = 0;  // 0: none
  uint64_t id_ = 0;     // of WhenDone()
};

grpc::ServerUnaryReactor* OperationsApi::ListOperations(
    grpc::CallbackServerContext* context, const google::longrunning::ListOperationsRequest* request,
    google::longrunning::ListOperationsResponse* response) {
  return Answer(
      calls_, "google.longrunning.Operations.ListOperations", context, request, response,
      [this](const auto& checked, const Call& /*call*/) { return operations_.List(checked); });
}

grpc::ServerUnaryReactor* OperationsApi::GetOperation(
    grpc::CallbackServerContext* context, const google::longrunning::GetOperationRequest* request,
    Operation* response) {
  return Answer(calls_, "google.longrunning.Operations.GetOperation", context, request, response,
                [this](const auto& checked, const Call& /*call*/) {
                  return operations_.Get(checked.name());
                });
}

grpc::ServerUnaryReactor* OperationsApi::DeleteOperation(
    grpc::CallbackServerContext* context,
    const google::longrunning::DeleteOperationRequest* request, google::protobuf::Empty* response) {
  return Answer(calls_, "google.longrunning.Operations.DeleteOperation", context, request, response,
                [this](const auto& checked, const Call& /*call*/) {
                  return EmptyOr(operations_.Delete(checked.name()));
                });
}

grpc::ServerUnaryReactor* OperationsApi::CancelOperation(
    grpc::CallbackServerContext* context,
    const google::longrunning::CancelOperationRequest* request, google::protobuf::Empty* response) {
  return Answer(calls_, "google.longrunning.Operations.CancelOperation", context, request, response,
                [this](const auto& checked, const Call& /*call*/) {
                  return EmptyOr(operations_.Cancel(checked.name()));
                });
}

grpc::ServerUnaryReactor* OperationsApi::WaitOperation(grpc::CallbackServerContext* context,
                                                       const WaitOperationRequest* request,
                                                       Operation* response) {
  auto wait = std::make_shared<Wait>(*this, context, request, response);
  const bool added = Add(wait);
  const absl::Status begins =
      added ? calls_.Begin(Executor::Lane::kReads, [wait] { wait->Begin(); }) : Draining();
  if (!begins.ok()) wait->Begin(begins);
  return wait.get();
}

void OperationsApi::Stop() {
  std::set<std::shared_ptr<Wait>> waits;
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    waits = waits_;
  }
  for (const std::shared_ptr<Wait>& wait : waits) wait->End(Draining());
}

bool OperationsApi::Add(const std::shared_ptr<Wait>& wait) {
  const std::lock_guard lock(mutex_);
  waits_.insert(wait);  // also if it ends at once: gRPC uses it until OnDone()
  return !stopped_;
}

void OperationsApi::Remove(const std::shared_ptr<Wait>& wait) {
  const std::lock_guard lock(mutex_);
  waits_.erase(wait);
}

}  // namespace gabion::service
