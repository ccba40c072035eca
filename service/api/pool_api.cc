#include "service/api/pool_api.h"

namespace gabion::service {

grpc::ServerUnaryReactor* PoolApi::GetPool(grpc::CallbackServerContext* context,
                                           const v1::GetPoolRequest* request, v1::Pool* response) {
  return Answer(
      calls_, "gabion.v1.PoolService.GetPool", context, request, response,
      [this](const auto& checked, const Call& /*call*/) { return pools_.Get(checked.name()); });
}

grpc::ServerUnaryReactor* PoolApi::ListPools(grpc::CallbackServerContext* context,
                                             const v1::ListPoolsRequest* request,
                                             v1::ListPoolsResponse* response) {
  return Answer(calls_, "gabion.v1.PoolService.ListPools", context, request, response,
                [this](const auto& checked, const Call& /*call*/) { return pools_.List(checked); });
}

}  // namespace gabion::service
