// Operations. The gRPC side: it checks, hands on and answers; what happens is in service/domain.
#pragma once

#include <memory>
#include <mutex>
#include <set>

#include "google/longrunning/operations.grpc.pb.h"
#include "service/api/call.h"
#include "service/domain/operation_manager.h"
#include "service/timers.h"

namespace gabion::service {

// google.longrunning.Operations. Owned by the server; called on threads of gRPC, where it does not
// block.
class OperationsApi final : public google::longrunning::Operations::CallbackService {
 public:
  // All of them outlive this.
  OperationsApi(Calls& calls, OperationManager& operations, Timers& timers)
      : calls_(calls), operations_(operations), timers_(timers) {}

  grpc::ServerUnaryReactor* ListOperations(
      grpc::CallbackServerContext* context,
      const google::longrunning::ListOperationsRequest* request,
      google::longrunning::ListOperationsResponse* response) override;
  grpc::ServerUnaryReactor* GetOperation(grpc::CallbackServerContext* context,
                                         const google::longrunning::GetOperationRequest* request,
                                         google::longrunning::Operation* response) override;
  grpc::ServerUnaryReactor* DeleteOperation(
      grpc::CallbackServerContext* context,
      const google::longrunning::DeleteOperationRequest* request,
      google::protobuf::Empty* response) override;
  grpc::ServerUnaryReactor* CancelOperation(
      grpc::CallbackServerContext* context,
      const google::longrunning::CancelOperationRequest* request,
      google::protobuf::Empty* response) override;
  grpc::ServerUnaryReactor* WaitOperation(grpc::CallbackServerContext* context,
                                          const google::longrunning::WaitOperationRequest* request,
                                          google::longrunning::Operation* response) override;

  // Ends all waits, UNAVAILABLE DRAINING, and lets no more begin. Before the gRPC server is shut
  // down, while the executor still runs.
  void Stop();

 private:
  class Wait;

  // False: it has been stopped.
  bool Add(const std::shared_ptr<Wait>& wait);
  void Remove(const std::shared_ptr<Wait>& wait);

  Calls& calls_;
  OperationManager& operations_;
  Timers& timers_;
  std::mutex mutex_;
  bool stopped_ = false;
  std::set<std::shared_ptr<Wait>> waits_;
};

}  // namespace gabion::service
