// What every method of the API does around its work: the same for all, so that handlers are one
// line each.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/base/log.h"
#include "engine/base/status_macros.h"
#include "google/protobuf/message.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/server_callback.h"
#include "service/domain/call.h"
#include "service/domain/operation_manager.h"
#include "service/domain/request_log.h"
#include "service/errors.h"
#include "service/executor.h"
#include "service/method.h"
#include "service/read_mask.h"

namespace gabion::service {

// A call answers this long before its deadline, if it waits until then, to be in time.
inline constexpr std::chrono::milliseconds kAnswerBefore{200};
// How long a call waits for others at most.
inline constexpr std::chrono::seconds kLongestPatience{60};

// Where calls run, and whether they may. Owned by the program, outlives the gRPC server; any
// thread.
class Calls {
 public:
  // All of them outlive this.
  Calls(Executor& executor, Logger& logger, RequestLog& requests, OperationManager& operations)
      : executor_(executor), logger_(logger), requests_(requests), operations_(operations) {}

  RequestLog& requests() { return requests_; }

  // Runs the work of a new call on the executor. RESOURCE_EXHAUSTED RATE_LIMITED: too much waits
  // there; UNAVAILABLE DRAINING: it has been stopped.
  absl::Status Begin(Executor::Lane lane, Executor::Work work);
  // More work of a call that has begun. UNAVAILABLE DRAINING.
  absl::Status GoOn(Executor::Work work);

  // From now on calls that change something are refused.
  void Drain() { draining_.store(true, std::memory_order_release); }
  bool draining() const { return draining_.load(std::memory_order_acquire); }

  // A call that is under way, from its begin until gRPC has done with it; part of its reactor.
  class UnderWay {
   public:
    explicit UnderWay(Calls& calls);
    UnderWay(const UnderWay&) = delete;
    UnderWay& operator=(const UnderWay&) = delete;
    ~UnderWay();

   private:
    Calls& calls_;
  };

  // From now on unary calls are refused; returns when none is under way any more, or after
  // `longest`.
  void Close(std::chrono::milliseconds longest);
  bool closed() const { return closed_.load(std::memory_order_acquire); }

  // What a call of `method` that ended with `status` answers. A defect of ours gets an id under
  // which the log tells more than the caller is told.
  grpc::Status Result(std::string_view method, const absl::Status& status);

  // If an earlier call had this request id: true, and `response` is what it was answered.
  absl::StatusOr<bool> Repeat(const Call& call, google::protobuf::Message* response);

 private:
  Executor& executor_;
  Logger& logger_;
  RequestLog& requests_;
  OperationManager& operations_;
  std::atomic<bool> draining_ = false;
  std::atomic<bool> closed_ = false;
  std::mutex mutex_;
  std::condition_variable idle_;
  size_t under_way_ = 0;
};

// Finishes one unary call. Owned by itself, until gRPC has done with it.
class UnaryReactor final : public grpc::ServerUnaryReactor {
 public:
  UnaryReactor(Calls& calls, std::chrono::system_clock::time_point deadline);
  // For the work of the call.
  Patience patience() const { return {until_, &gone_}; }
  void OnCancel() override;
  void OnDone() override { delete this; }

 private:
  const Calls::UnderWay under_way_;
  Calls& calls_;
  const Patience::Clock::time_point until_;
  std::atomic<bool> gone_ = false;
};

// What has a request_id changes resources, and may wait for others that do.
inline Executor::Lane LaneOf(const Method& method) {
  return method.request_id == nullptr ? Executor::Lane::kReads : Executor::Lane::kChanges;
}

// A request of `method` that has been copied, cleared of what callers may not set, and checked;
// `call` is what the domain needs to know of it.
absl::Status Prepare(const Method& method, google::protobuf::Message* request, Call* call);

// What the request's read_mask asks for; nothing if the method has none.
absl::StatusOr<std::optional<ReadMask>> ReadMaskOf(const Method& method,
                                                   const google::protobuf::Message& request);
// Leaves that in the response: in the resource, or in each one of a list.
void Trim(const ReadMask& mask, google::protobuf::Message* response);

// A unary call from its request to its answer: checks, looks for an earlier call with its request
// id, does the work. Blocks; on the executor.
template <typename Request, typename Response, typename Work>
absl::Status Do(Calls& calls, const Method& method, const Request& request, Response* response,
                Work& work, const Patience& patience = {}) {
  if (method.changes && calls.draining()) return Draining();
  Request checked = request;
  Call call;
  call.patience = patience;
  RETURN_IF_ERROR(Prepare(method, &checked, &call));
  ASSIGN_OR_RETURN(const std::optional<ReadMask> mask, ReadMaskOf(method, checked));
  std::optional<ResourceLocks::Guard> alone;  // among the calls with this request id
  if (!call.request.empty()) {
    ASSIGN_OR_RETURN(ResourceLocks::Guard entered, calls.requests().Enter(call));
    alone.emplace(std::move(entered));
    ASSIGN_OR_RETURN(const bool repeated, calls.Repeat(call, response));
    if (repeated) return absl::OkStatus();
  }
  absl::StatusOr<Response> result = work(checked, call);
  if (!result.ok()) return result.status();
  *response = *std::move(result);
  if (mask.has_value()) Trim(*mask, response);
  return absl::OkStatus();
}

// Answers a unary call of the method of that full name: runs `work`,
// (const Request&, const Call&) -> absl::StatusOr<Response>, on the executor with the checked
// request. On a thread of gRPC; does not block.
template <typename Request, typename Response, typename Work>
grpc::ServerUnaryReactor* Answer(Calls& calls, std::string_view full_name,
                                 grpc::CallbackServerContext* context, const Request* request,
                                 Response* response, Work work) {
  const Method& method = MethodNamed(full_name);
  if (calls.closed()) {
    grpc::ServerUnaryReactor* refused = context->DefaultReactor();
    refused->Finish(calls.Result(method.name, Draining()));
    return refused;
  }
  auto* const reactor = new UnaryReactor(calls, context->deadline());
  // `context`, `request` and `response` live until the reactor is finished.
  const absl::Status runs = calls.Begin(
      LaneOf(method),
      [&calls, &method, context, request, response, reactor, work = std::move(work)]() mutable {
        if (context->IsCancelled()) return reactor->Finish(grpc::Status::CANCELLED);
        reactor->Finish(calls.Result(
            method.name, Do(calls, method, *request, response, work, reactor->patience())));
      });
  if (!runs.ok()) reactor->Finish(calls.Result(method.name, runs));
  return reactor;
}

}  // namespace gabion::service
