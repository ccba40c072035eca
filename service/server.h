// The gRPC server: where it listens, what it limits, and how it ends.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "grpcpp/server.h"
#include "service/api/call.h"
#include "service/domain/domain.h"

namespace gabion::service {

struct ServerOptions {
  std::string unix_path;      // absolute; empty: no Unix socket
  std::string tcp_host;       // an IP address or localhost; empty: no TCP
  uint16_t tcp_port = 0;      // 0: the system chooses; see addresses()
  bool tcp_insecure = false;  // tcp_host need not be loopback
};

// The services of the API, health and reflection on their listeners. Owned by the program, which
// calls it on one thread.
class Server {
 public:
  // Binds the listeners and serves. Health says NOT_SERVING for `readiness` until SetReady().
  // `calls` and `domain` outlive the server.
  static absl::StatusOr<std::unique_ptr<Server>> Start(const ServerOptions& options, Calls& calls,
                                                       Domain& domain);
  // As Stop(), at once.
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // "unix:PATH", "HOST:PORT".
  const std::vector<std::string>& addresses() const { return addresses_; }

  void SetReady();
  // Health says NOT_SERVING; what changes something is refused, what is under way goes on.
  void Drain();
  // Takes no more calls and waits for those under way; after `grace` they are cut off.
  void Stop(std::chrono::milliseconds grace);

 private:
  struct Services;
  Server();

  absl::Status Bind(const ServerOptions& options);
  // What Health says of the services of the API and of `readiness`.
  void SetHealth(bool serving);

  Calls* calls_ = nullptr;
  std::unique_ptr<Services> services_;
  std::unique_ptr<grpc::Server> server_;
  std::vector<std::string> addresses_;
  bool stopped_ = false;
};

}  // namespace gabion::service
