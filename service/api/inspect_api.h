// Looking into images and exports. The gRPC side: it checks, hands on and answers; what happens is
// in service/domain.
#pragma once

#include "gabion/v1/inspect.grpc.pb.h"
#include "service/api/call.h"
#include "service/domain/inspector.h"

namespace gabion::service {

// gabion.v1.InspectService. Owned by the server; called on threads of gRPC, where it does not
// block.
class InspectApi final : public v1::InspectService::CallbackService {
 public:
  // Both outlive this.
  InspectApi(Calls& calls, Inspector& inspector) : calls_(calls), inspector_(inspector) {}

  grpc::ServerWriteReactor<v1::MapResponse>* Map(grpc::CallbackServerContext* context,
                                                 const v1::MapRequest* request) override;
  grpc::ServerUnaryReactor* Read(grpc::CallbackServerContext* context,
                                 const v1::ReadRequest* request,
                                 v1::ReadResponse* response) override;
  grpc::ServerUnaryReactor* Write(grpc::CallbackServerContext* context,
                                  const v1::WriteRequest* request,
                                  v1::WriteResponse* response) override;
  grpc::ServerUnaryReactor* Verify(grpc::CallbackServerContext* context,
                                   const v1::VerifyRequest* request,
                                   v1::VerifyResponse* response) override;
  grpc::ServerUnaryReactor* Explain(grpc::CallbackServerContext* context,
                                    const v1::ExplainRequest* request,
                                    v1::ExplainResponse* response) override;
  grpc::ServerUnaryReactor* GetFilterStatistics(grpc::CallbackServerContext* context,
                                                const v1::GetFilterStatisticsRequest* request,
                                                v1::GetFilterStatisticsResponse* response) override;

 private:
  Calls& calls_;
  Inspector& inspector_;
};

}  // namespace gabion::service
