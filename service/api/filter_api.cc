#include "service/api/filter_api.h"

#include "engine/base/status_macros.h"
#include "google/protobuf/empty.pb.h"

namespace gabion::service {

grpc::ServerUnaryReactor* FilterApi::CreateFilter(grpc::CallbackServerContext* context,
                                                  const v1::CreateFilterRequest* request,
                                                  v1::Filter* response) {
  return Answer(
      calls_, "gabion.v1.FilterService.CreateFilter", context, request, response,
      [this](const auto& checked, const Call& call) { return filters_.Create(checked, call); });
}

grpc::ServerUnaryReactor* FilterApi::GetFilter(grpc::CallbackServerContext* context,
                                               const v1::GetFilterRequest* request,
                                               v1::Filter* response) {
  return Answer(
      calls_, "gabion.v1.FilterService.GetFilter", context, request, response,
      [this](const auto& checked, const Call& /*call*/) { return filters_.Get(checked.name()); });
}

grpc::ServerUnaryReactor* FilterApi::ListFilters(grpc::CallbackServerContext* context,
                                                 const v1::ListFiltersRequest* request,
                                                 v1::ListFiltersResponse* response) {
  return Answer(
      calls_, "gabion.v1.FilterService.ListFilters", context, request, response,
      [this](const auto& checked, const Call& /*call*/) { return filters_.List(checked); });
}

grpc::ServerUnaryReactor* FilterApi::UpdateFilter(grpc::CallbackServerContext* context,
                                                  const v1::UpdateFilterRequest* request,
                                                  v1::Filter* response) {
  return Answer(
      calls_, "gabion.v1.FilterService.UpdateFilter", context, request, response,
      [this](const auto& checked, const Call& call) { return filters_.Update(checked, call); });
}

grpc::ServerUnaryReactor* FilterApi::DeleteFilter(grpc::CallbackServerContext* context,
                                                  const v1::DeleteFilterRequest* request,
                                                  google::protobuf::Empty* response) {
  return Answer(
      calls_, "gabion.v1.FilterService.DeleteFilter", context, request, response,
      [this](const auto& checked, const Call& call) -> absl::StatusOr<google::protobuf::Empty> {
        RETURN_IF_ERROR(filters_.Delete(checked, call));
        return google::protobuf::Empty();
      });
}

}  // namespace gabion::service
