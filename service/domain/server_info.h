// What the daemon is and how it was set up.
#pragma once

#include <mutex>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "gabion/v1/server.pb.h"

namespace gabion::service {

// Answers GetServerInfo. Owned by the domain; any thread.
class ServerInfoSource {
 public:
  // `facts`: what does not change and is not the engine's to know.
  ServerInfoSource(const engine::Engine& engine, v1::ServerInfo facts);

  // Where gRPC listens, once that is known.
  void SetGrpcAddresses(const std::vector<std::string>& addresses);

  absl::StatusOr<v1::ServerInfo> Get() const;

 private:
  const engine::Engine& engine_;
  mutable std::mutex mutex_;
  v1::ServerInfo facts_;
};

}  // namespace gabion::service
