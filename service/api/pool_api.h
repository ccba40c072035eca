// Pools. The gRPC side: it checks, hands on and answers; what happens is in service/domain.
#pragma once

#include "gabion/v1/pool.grpc.pb.h"
#include "service/api/call.h"
#include "service/domain/pool_manager.h"

namespace gabion::service {

// gabion.v1.PoolService. Owned by the server; called on threads of gRPC, where it does not block.
class PoolApi final : public v1::PoolService::CallbackService {
 public:
  // All of them outlive this.
  PoolApi(Calls& calls, PoolManager& pools) : calls_(calls), pools_(pools) {}

  grpc::ServerUnaryReactor* GetPool(grpc::CallbackServerContext* context,
                                    const v1::GetPoolRequest* request, v1::Pool* response) override;
  grpc::ServerUnaryReactor* ListPools(grpc::CallbackServerContext* context,
                                      const v1::ListPoolsRequest* request,
                                      v1::ListPoolsResponse* response) override;

 private:
  Calls& calls_;
  PoolManager& pools_;
};

}  // namespace gabion::service
