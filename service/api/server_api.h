// The daemon itself. The gRPC side: it checks, hands on and answers; what happens is in
// service/domain.
#pragma once

#include "gabion/v1/server.grpc.pb.h"
#include "service/api/call.h"
#include "service/domain/server_info.h"

namespace gabion::service {

// gabion.v1.ServerService. Owned by the server; called on threads of gRPC, where it does not block.
class ServerApi final : public v1::ServerService::CallbackService {
 public:
  // All of them outlive this.
  ServerApi(Calls& calls, ServerInfoSource& info) : calls_(calls), info_(info) {}

  grpc::ServerUnaryReactor* GetServerInfo(grpc::CallbackServerContext* context,
                                          const v1::GetServerInfoRequest* request,
                                          v1::ServerInfo* response) override;

 private:
  Calls& calls_;
  ServerInfoSource& info_;
};

}  // namespace gabion::service
