#include "service/api/server_api.h"

namespace gabion::service {

grpc::ServerUnaryReactor* ServerApi::GetServerInfo(grpc::CallbackServerContext* context,
                                                   const v1::GetServerInfoRequest* request,
                                                   v1::ServerInfo* response) {
  return Answer(calls_, "GetServerInfo", Effect::kReads, context, request, response,
                [this](const auto& /*checked*/) { return info_.Get(); });
}

}  // namespace gabion::service
