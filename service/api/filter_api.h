// Named filters. The gRPC side: it checks, hands on and answers; what happens is in service/domain.
#pragma once

#include "gabion/v1/filter.grpc.pb.h"
#include "service/api/call.h"
#include "service/domain/filter_manager.h"

namespace gabion::service {

// gabion.v1.FilterService. Owned by the server; called on threads of gRPC, where it does not block.
class FilterApi final : public v1::FilterService::CallbackService {
 public:
  // Both outlive this.
  FilterApi(Calls& calls, FilterManager& filters) : calls_(calls), filters_(filters) {}

  grpc::ServerUnaryReactor* CreateFilter(grpc::CallbackServerContext* context,
                                         const v1::CreateFilterRequest* request,
                                         v1::Filter* response) override;
  grpc::ServerUnaryReactor* GetFilter(grpc::CallbackServerContext* context,
                                      const v1::GetFilterRequest* request,
                                      v1::Filter* response) override;
  grpc::ServerUnaryReactor* ListFilters(grpc::CallbackServerContext* context,
                                        const v1::ListFiltersRequest* request,
                                        v1::ListFiltersResponse* response) override;
  grpc::ServerUnaryReactor* UpdateFilter(grpc::CallbackServerContext* context,
                                         const v1::UpdateFilterRequest* request,
                                         v1::Filter* response) override;
  grpc::ServerUnaryReactor* DeleteFilter(grpc::CallbackServerContext* context,
                                         const v1::DeleteFilterRequest* request,
                                         google::protobuf::Empty* response) override;

 private:
  Calls& calls_;
  FilterManager& filters_;
};

}  // namespace gabion::service
