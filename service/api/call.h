// What every method of the API does around its work: the same for all, so that handlers are one
// line each.
#pragma once

#include <atomic>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/base/log.h"
#include "google/longrunning/operations.pb.h"
#include "google/protobuf/message.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/server_callback.h"
#include "service/errors.h"
#include "service/executor.h"

namespace gabion::service {

// Where calls run, and whether they may. Owned by the program, outlives the gRPC server; any
// thread.
class Calls {
 public:
  // Both outlive this.
  Calls(Executor& executor, Logger& logger) : executor_(executor), logger_(logger) {}

  Executor& executor() { return executor_; }

  // From now on calls that change something are refused.
  void Drain() { draining_.store(true, std::memory_order_release); }
  bool draining() const { return draining_.load(std::memory_order_acquire); }

  // What a call of `method` that ended with `status` answers. A defect of ours gets an id under
  // which the log tells more than the caller is told.
  grpc::Status Result(std::string_view method, const absl::Status& status);

 private:
  Executor& executor_;
  Logger& logger_;
  std::atomic<bool> draining_ = false;
};

enum class Effect {
  kReads,
  kChanges,  // refused while draining
};

// A request of `method` that has been copied, cleared of what callers may not set, and checked.
absl::Status Prepare(google::protobuf::Message* request);

// Answers a unary call: runs `work`, Request -> absl::StatusOr<Response>, on the executor with the
// checked request. On a thread of gRPC; does not block.
template <typename Request, typename Response, typename Work>
grpc::ServerUnaryReactor* Answer(Calls& calls, std::string_view method, Effect effect,
                                 grpc::CallbackServerContext* context, const Request* request,
                                 Response* response, Work work) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  // `context`, `request` and `response` live until the reactor is finished.
  const bool runs = calls.executor().Run(
      [&calls, method, effect, context, request, response, reactor, work = std::move(work)] {
        if (context->IsCancelled()) return reactor->Finish(grpc::Status::CANCELLED);
        if (effect == Effect::kChanges && calls.draining()) {
          return reactor->Finish(calls.Result(method, Draining()));
        }
        Request checked = *request;
        absl::Status status = Prepare(&checked);
        if (status.ok()) {
          absl::StatusOr<Response> result = work(checked);
          status = result.status();
          if (status.ok()) *response = std::move(*result);
        }
        reactor->Finish(calls.Result(method, status));
      });
  if (!runs) reactor->Finish(calls.Result(method, Draining()));
  return reactor;
}

// An operation that is done and of which nothing is kept, with `result` or the error that the
// method then answers itself.
template <typename T>
absl::StatusOr<google::longrunning::Operation> DoneOperation(const absl::StatusOr<T>& result) {
  if (!result.ok()) return result.status();
  google::longrunning::Operation operation;
  operation.set_done(true);
  operation.mutable_response()->PackFrom(*result);
  return operation;
}

}  // namespace gabion::service
