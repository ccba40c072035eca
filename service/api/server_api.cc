#include "service/api/server_api.h"

namespace gabion::service {

grpc::ServerUnaryReactor* ServerApi::GetServerInfo(grpc::CallbackServerContext* context,
                                                   const v1::GetServerInfoRequest* request,
                                                   v1::ServerInfo* response) {
  return Answer(calls_, "gabion.v1.ServerService.GetServerInfo", context, request, response,
                [this](const auto& /*checked*/, const Call& /*call*/) { return info_.Get(); });
}

}  // namespace gabion::service
