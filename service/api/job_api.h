// Jobs. The gRPC side: it checks, hands on and answers; what happens is in service/domain.
#pragma once

#include "gabion/v1/job.grpc.pb.h"
#include "service/api/call.h"
#include "service/domain/operation_manager.h"

namespace gabion::service {

// gabion.v1.JobService. Owned by the server; called on threads of gRPC, where it does not block.
class JobApi final : public v1::JobService::CallbackService {
 public:
  // All of them outlive this.
  JobApi(Calls& calls, OperationManager& operations) : calls_(calls), operations_(operations) {}

  grpc::ServerUnaryReactor* PauseJob(grpc::CallbackServerContext* context,
                                     const v1::PauseJobRequest* request,
                                     google::longrunning::Operation* response) override;
  grpc::ServerUnaryReactor* ResumeJob(grpc::CallbackServerContext* context,
                                      const v1::ResumeJobRequest* request,
                                      google::longrunning::Operation* response) override;
  grpc::ServerUnaryReactor* SetJobRate(grpc::CallbackServerContext* context,
                                       const v1::SetJobRateRequest* request,
                                       google::longrunning::Operation* response) override;

 private:
  Calls& calls_;
  OperationManager& operations_;
};

}  // namespace gabion::service
