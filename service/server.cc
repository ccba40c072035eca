#include "service/server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/stat.h>

#include <algorithm>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/resource_quota.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server_builder.h"
#include "service/api/export_api.h"
#include "service/api/filter_api.h"
#include "service/api/image_api.h"
#include "service/api/inspect_api.h"
#include "service/api/job_api.h"
#include "service/api/operations_api.h"
#include "service/api/pool_api.h"
#include "service/api/server_api.h"
#include "service/api/watch_api.h"
#include "service/reflection_v1.h"
#include "service/timers.h"
#include "service/unix_socket.h"

namespace gabion::service {
namespace {

// How long connections without a call have to close: clients that do nothing may not notice.
constexpr std::chrono::milliseconds kGoodbye{200};

constexpr const char* kReadiness = "readiness";
constexpr const char* kAlpha = "grpc.reflection.v1alpha.ServerReflection";
constexpr const char* kHealth = "grpc.health.v1.Health";

std::vector<std::string> ApiServices() {
  return {v1::PoolService::service_full_name(),
          v1::ImageService::service_full_name(),
          v1::ExportService::service_full_name(),
          v1::FilterService::service_full_name(),
          v1::InspectService::service_full_name(),
          v1::JobService::service_full_name(),
          v1::ServerService::service_full_name(),
          v1::WatchService::service_full_name(),
          google::longrunning::Operations::service_full_name()};
}

std::vector<std::string> AllServices() {
  std::vector<std::string> services = ApiServices();
  services.insert(services.end(), {kHealth, kAlpha});
  return services;
}

// Once for the process, before the first server is built.
void EnableHealthAndReflection() {
  static const bool enabled = [] {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    return true;
  }();
  (void)enabled;
}

void SetLimits(grpc::ServerBuilder& builder) {
  builder.SetMaxReceiveMessageSize(4 << 20);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, 16 << 10);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, 256);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_MS, 3'600'000);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS, 600'000);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 10'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  // A second server on the port of a first one would get half of its calls.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  grpc::ResourceQuota quota("gabiond");
  quota.Resize(std::size_t{256} << 20);
  builder.SetResourceQuota(quota);
}

// The address of `host` as gRPC takes it. An error for one that would let the network in without
// credentials, unless that is wanted.
absl::StatusOr<std::string> TcpAddress(const std::string& host, bool insecure) {
  const std::string literal = host == "localhost" ? "127.0.0.1" : host;
  in_addr v4;
  if (inet_pton(AF_INET, literal.c_str(), &v4) == 1 &&
      (insecure || (ntohl(v4.s_addr) >> 24) == 127)) {
    return literal;
  }
  in6_addr v6;
  if (inet_pton(AF_INET6, literal.c_str(), &v6) == 1 && (insecure || IN6_IS_ADDR_LOOPBACK(&v6))) {
    return absl::StrCat("[", literal, "]");
  }
  return absl::InvalidArgumentError(
      absl::StrCat("gRPC without TLS is for loopback addresses only, not for ", host, "."));
}

}  // namespace

struct Server::Services {
  Services(Calls& calls, Domain& domain)
      : pools(calls, domain.pools()),
        images(calls, domain.images()),
        exports(calls, domain.exports(), domain.connections()),
        filters(calls, domain.filters()),
        inspect(calls, domain.inspector()),
        operations(calls, domain.operations(), timers),
        jobs(calls, domain.operations()),
        watches(calls, timers, {domain.store(), domain.feed(), domain.views()}),
        info(calls, domain.server_info()),
        reflection(AllServices()) {}

  void Register(grpc::ServerBuilder& builder) {
    builder.RegisterService(&pools);
    builder.RegisterService(&images);
    builder.RegisterService(&exports);
    builder.RegisterService(&filters);
    builder.RegisterService(&inspect);
    builder.RegisterService(&operations);
    builder.RegisterService(&jobs);
    builder.RegisterService(&watches);
    builder.RegisterService(&info);
    builder.RegisterService(&reflection);
  }

  Timers timers;
  PoolApi pools;
  ImageApi images;
  ExportApi exports;
  FilterApi filters;
  InspectApi inspect;
  OperationsApi operations;
  JobApi jobs;
  WatchApi watches;
  ServerApi info;
  ReflectionV1 reflection;
};

Server::Server() = default;

Server::~Server() { Stop(std::chrono::milliseconds(0)); }

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const ServerOptions& options, Calls& calls,
                                                      Domain& domain) {
  EnableHealthAndReflection();
  std::unique_ptr<Server> server(new Server());
  server->calls_ = &calls;
  server->services_ = std::make_unique<Services>(calls, domain);
  RETURN_IF_ERROR(server->Bind(options));
  domain.server_info().SetGrpcAddresses(server->addresses_);
  server->SetHealth(false);
  return server;
}

absl::Status Server::Bind(const ServerOptions& options) {
  grpc::ServerBuilder builder;
  SetLimits(builder);
  int unix_bound = 0;
  int tcp_port = 0;
  if (!options.unix_path.empty()) {
    RETURN_IF_ERROR(PrepareUnixSocket(options.unix_path));
    builder.AddListeningPort(absl::StrCat("unix:", options.unix_path),
                             grpc::experimental::LocalServerCredentials(UDS), &unix_bound);
  }
  std::string tcp_host;
  if (!options.tcp_host.empty()) {
    ASSIGN_OR_RETURN(tcp_host, TcpAddress(options.tcp_host, options.tcp_insecure));
    builder.AddListeningPort(absl::StrCat(tcp_host, ":", options.tcp_port),
                             grpc::InsecureServerCredentials(), &tcp_port);
  }
  services_->Register(builder);
  {
    // The socket is nobody else's from its first moment on.
    const mode_t mask = umask(0177);
    const absl::Cleanup restore = [mask] { umask(mask); };
    server_ = builder.BuildAndStart();
  }
  if (!options.unix_path.empty()) {
    if (unix_bound == 0) {
      return absl::UnavailableError(absl::StrCat("Cannot listen on ", options.unix_path, "."));
    }
    addresses_.push_back(absl::StrCat("unix:", options.unix_path));
  }
  if (!tcp_host.empty()) {
    if (tcp_port == 0) {
      return absl::UnavailableError(
          absl::StrCat("Cannot listen on ", tcp_host, ":", options.tcp_port, "."));
    }
    addresses_.push_back(absl::StrCat(tcp_host, ":", tcp_port));
  }
  if (server_ == nullptr) return absl::InternalError("The gRPC server could not be built.");
  return absl::OkStatus();
}

void Server::SetHealth(bool serving) {
  grpc::HealthCheckServiceInterface* health = server_->GetHealthCheckService();
  for (const std::string& service : ApiServices()) health->SetServingStatus(service, serving);
  health->SetServingStatus(kReadiness, serving);
}

void Server::SetReady() { SetHealth(true); }

// The process itself, "", lives until the end.
void Server::Drain() {
  SetHealth(false);
  calls_->Drain();
  services_->operations.Stop();
  services_->watches.Drain();
}

void Server::Stop(std::chrono::milliseconds grace) {
  if (server_ == nullptr || stopped_) return;
  stopped_ = true;
  server_->GetHealthCheckService()->SetServingStatus(false);
  calls_->Close(grace);
  server_->Shutdown(std::chrono::system_clock::now() + std::min(grace, kGoodbye));
  server_->Wait();
}

}  // namespace gabion::service
