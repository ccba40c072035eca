#include "service/api/export_api.h"

namespace gabion::service {

grpc::ServerUnaryReactor* ExportApi::CreateExport(grpc::CallbackServerContext* context,
                                                  const v1::CreateExportRequest* request,
                                                  v1::Export* response) {
  return Answer(calls_, "CreateExport", Effect::kChanges, context, request, response,
                [this](const auto& checked) { return exports_.Create(checked); });
}

grpc::ServerUnaryReactor* ExportApi::GetExport(grpc::CallbackServerContext* context,
                                               const v1::GetExportRequest* request,
                                               v1::Export* response) {
  return Answer(calls_, "GetExport", Effect::kReads, context, request, response,
                [this](const auto& checked) { return exports_.Get(checked.name()); });
}

grpc::ServerUnaryReactor* ExportApi::ListExports(grpc::CallbackServerContext* context,
                                                 const v1::ListExportsRequest* request,
                                                 v1::ListExportsResponse* response) {
  return Answer(calls_, "ListExports", Effect::kReads, context, request, response,
                [this](const auto& checked) { return exports_.List(checked); });
}

grpc::ServerUnaryReactor* ExportApi::UpdateExport(grpc::CallbackServerContext* context,
                                                  const v1::UpdateExportRequest* request,
                                                  v1::Export* response) {
  return Answer(calls_, "UpdateExport", Effect::kChanges, context, request, response,
                [this](const auto& checked) { return exports_.Update(checked); });
}

grpc::ServerUnaryReactor* ExportApi::DeleteExport(grpc::CallbackServerContext* context,
                                                  const v1::DeleteExportRequest* request,
                                                  google::longrunning::Operation* response) {
  return Answer(
      calls_, "DeleteExport", Effect::kChanges, context, request, response,
      [this](const auto& checked) { return DoneOperation(exports_.Delete(checked.name())); });
}

grpc::ServerUnaryReactor* ExportApi::GetConnection(grpc::CallbackServerContext* context,
                                                   const v1::GetConnectionRequest* request,
                                                   v1::Connection* response) {
  return Answer(calls_, "GetConnection", Effect::kReads, context, request, response,
                [this](const auto& checked) { return connections_.Get(checked.name()); });
}

grpc::ServerUnaryReactor* ExportApi::ListConnections(grpc::CallbackServerContext* context,
                                                     const v1::ListConnectionsRequest* request,
                                                     v1::ListConnectionsResponse* response) {
  return Answer(calls_, "ListConnections", Effect::kReads, context, request, response,
                [this](const auto& checked) { return connections_.List(checked); });
}

grpc::ServerUnaryReactor* ExportApi::CloseConnection(grpc::CallbackServerContext* context,
                                                     const v1::CloseConnectionRequest* request,
                                                     v1::CloseConnectionResponse* response) {
  return Answer(calls_, "CloseConnection", Effect::kChanges, context, request, response,
                [this](const auto& checked) { return connections_.Close(checked.name()); });
}

}  // namespace gabion::service
