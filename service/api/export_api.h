// Exports and the connections to them. The gRPC side: it checks, hands on and answers; what happens
// is in service/domain.
#pragma once

#include "gabion/v1/export.grpc.pb.h"
#include "service/api/call.h"
#include "service/domain/connection_manager.h"
#include "service/domain/export_manager.h"

namespace gabion::service {

// gabion.v1.ExportService. Owned by the server; called on threads of gRPC, where it does not block.
class ExportApi final : public v1::ExportService::CallbackService {
 public:
  // All of them outlive this.
  ExportApi(Calls& calls, ExportManager& exports, ConnectionManager& connections)
      : calls_(calls), exports_(exports), connections_(connections) {}

  grpc::ServerUnaryReactor* CreateExport(grpc::CallbackServerContext* context,
                                         const v1::CreateExportRequest* request,
                                         v1::Export* response) override;
  grpc::ServerUnaryReactor* GetExport(grpc::CallbackServerContext* context,
                                      const v1::GetExportRequest* request,
                                      v1::Export* response) override;
  grpc::ServerUnaryReactor* ListExports(grpc::CallbackServerContext* context,
                                        const v1::ListExportsRequest* request,
                                        v1::ListExportsResponse* response) override;
  grpc::ServerUnaryReactor* UpdateExport(grpc::CallbackServerContext* context,
                                         const v1::UpdateExportRequest* request,
                                         v1::Export* response) override;
  grpc::ServerUnaryReactor* AttachFilter(grpc::CallbackServerContext* context,
                                         const v1::AttachFilterRequest* request,
                                         v1::Export* response) override;
  grpc::ServerUnaryReactor* DetachFilter(grpc::CallbackServerContext* context,
                                         const v1::DetachFilterRequest* request,
                                         v1::Export* response) override;
  grpc::ServerUnaryReactor* DeleteExport(grpc::CallbackServerContext* context,
                                         const v1::DeleteExportRequest* request,
                                         google::longrunning::Operation* response) override;
  grpc::ServerUnaryReactor* GetConnection(grpc::CallbackServerContext* context,
                                          const v1::GetConnectionRequest* request,
                                          v1::Connection* response) override;
  grpc::ServerUnaryReactor* ListConnections(grpc::CallbackServerContext* context,
                                            const v1::ListConnectionsRequest* request,
                                            v1::ListConnectionsResponse* response) override;
  grpc::ServerUnaryReactor* CloseConnection(grpc::CallbackServerContext* context,
                                            const v1::CloseConnectionRequest* request,
                                            v1::CloseConnectionResponse* response) override;

 private:
  Calls& calls_;
  ExportManager& exports_;
  ConnectionManager& connections_;
};

}  // namespace gabion::service
