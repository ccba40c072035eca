#include "service/api/job_api.h"

namespace gabion::service {

grpc::ServerUnaryReactor* JobApi::PauseJob(grpc::CallbackServerContext* context,
                                           const v1::PauseJobRequest* request,
                                           google::longrunning::Operation* response) {
  return Answer(
      calls_, "gabion.v1.JobService.PauseJob", context, request, response,
      [this](const auto& checked, const Call& call) { return operations_.Pause(checked, call); });
}

grpc::ServerUnaryReactor* JobApi::ResumeJob(grpc::CallbackServerContext* context,
                                            const v1::ResumeJobRequest* request,
                                            google::longrunning::Operation* response) {
  return Answer(
      calls_, "gabion.v1.JobService.ResumeJob", context, request, response,
      [this](const auto& checked, const Call& call) { return operations_.Resume(checked, call); });
}

grpc::ServerUnaryReactor* JobApi::SetJobRate(grpc::CallbackServerContext* context,
                                             const v1::SetJobRateRequest* request,
                                             google::longrunning::Operation* response) {
  return Answer(
      calls_, "gabion.v1.JobService.SetJobRate", context, request, response,
      [this](const auto& checked, const Call& call) { return operations_.SetRate(checked, call); });
}

}  // namespace gabion::service
