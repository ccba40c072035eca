#include "service/api/export_api.h"

namespace gabion::service {

grpc::ServerUnaryReactor* ExportApi::CreateExport(grpc::CallbackServerContext* context,
                                                  const v1::CreateExportRequest* request,
                                                  v1::Export* response) {
  return Answer(
      calls_, "gabion.v1.ExportService.CreateExport", context, request, response,
      [this](const auto& checked, const Call& call) { return exports_.Create(checked, call); });
}

grpc::ServerUnaryReactor* ExportApi::GetExport(grpc::CallbackServerContext* context,
                                               const v1::GetExportRequest* request,
                                               v1::Export* response) {
  return Answer(
      calls_, "gabion.v1.ExportService.GetExport", context, request, response,
      [this](const auto& checked, const Call& /*call*/) { return exports_.Get(checked.name()); });
}

grpc::ServerUnaryReactor* ExportApi::ListExports(grpc::CallbackServerContext* context,
                                                 const v1::ListExportsRequest* request,
                                                 v1::ListExportsResponse* response) {
  return Answer(
      calls_, "gabion.v1.ExportService.ListExports", context, request, response,
      [this](const auto& checked, const Call& /*call*/) { return exports_.List(checked); });
}

grpc::ServerUnaryReactor* ExportApi::UpdateExport(grpc::CallbackServerContext* context,
                                                  const v1::UpdateExportRequest* request,
                                                  v1::Export* response) {
  return Answer(
      calls_, "gabion.v1.ExportService.UpdateExport", context, request, response,
      [this](const auto& checked, const Call& call) { return exports_.Update(checked, call); });
}

grpc::ServerUnaryReactor* ExportApi::AttachFilter(grpc::CallbackServerContext* context,
                                                  const v1::AttachFilterRequest* request,
                                                  v1::Export* response) {
  return Answer(calls_, "gabion.v1.ExportService.AttachFilter", context, request, response,
                [this](const auto& checked, const Call& call) {
                  return exports_.AttachFilter(checked, call);
                });
}

grpc::ServerUnaryReactor* ExportApi::DetachFilter(grpc::CallbackServerContext* context,
                                                  const v1::DetachFilterRequest* request,
                                                  v1::Export* response) {
  return Answer(calls_, "gabion.v1.ExportService.DetachFilter", context, request, response,
                [this](const auto& checked, const Call& call) {
                  return exports_.DetachFilter(checked, call);
                });
}

grpc::ServerUnaryReactor* ExportApi::DeleteExport(grpc::CallbackServerContext* context,
                                                  const v1::DeleteExportRequest* request,
                                                  google::longrunning::Operation* response) {
  return Answer(
      calls_, "gabion.v1.ExportService.DeleteExport", context, request, response,
      [this](const auto& checked, const Call& call) { return exports_.Delete(checked, call); });
}

grpc::ServerUnaryReactor* ExportApi::GetConnection(grpc::CallbackServerContext* context,
                                                   const v1::GetConnectionRequest* request,
                                                   v1::Connection* response) {
  return Answer(calls_, "gabion.v1.ExportService.GetConnection", context, request, response,
                [this](const auto& checked, const Call& /*call*/) {
                  return connections_.Get(checked.name());
                });
}

grpc::ServerUnaryReactor* ExportApi::ListConnections(grpc::CallbackServerContext* context,
                                                     const v1::ListConnectionsRequest* request,
                                                     v1::ListConnectionsResponse* response) {
  return Answer(
      calls_, "gabion.v1.ExportService.ListConnections", context, request, response,
      [this](const auto& checked, const Call& /*call*/) { return connections_.List(checked); });
}

grpc::ServerUnaryReactor* ExportApi::CloseConnection(grpc::CallbackServerContext* context,
                                                     const v1::CloseConnectionRequest* request,
                                                     v1::CloseConnectionResponse* response) {
  return Answer(
      calls_, "gabion.v1.ExportService.CloseConnection", context, request, response,
      [this](const auto& checked, const Call& call) { return connections_.Close(checked, call); });
}

}  // namespace gabion::service
