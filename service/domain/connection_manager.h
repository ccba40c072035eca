// The connections of NBD clients to exports: observed only, nothing of them is stored.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "gabion/v1/export.pb.h"
#include "service/domain/call.h"
#include "service/domain/export_manager.h"
#include "service/domain/page_token.h"

namespace gabion::service {

// Owned by the domain; any thread of the executor, which blocks.
class ConnectionManager {
 public:
  // All of them outlive this.
  ConnectionManager(engine::Engine& engine, MetadataStore& store, const ExportManager& exports,
                    const PageTokens& tokens)
      : engine_(engine), store_(store), exports_(exports), tokens_(tokens) {}

  absl::StatusOr<v1::Connection> Get(const std::string& name) const;
  absl::StatusOr<v1::ListConnectionsResponse> List(const v1::ListConnectionsRequest& request) const;
  absl::StatusOr<v1::CloseConnectionResponse> Close(const v1::CloseConnectionRequest& request,
                                                    const Call& call);

 private:
  // Oldest first.
  absl::StatusOr<std::vector<engine::ConnectionState>> All(const std::string& export_name) const;

  engine::Engine& engine_;
  MetadataStore& store_;
  const ExportManager& exports_;
  const PageTokens& tokens_;
};

}  // namespace gabion::service
