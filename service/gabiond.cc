// The daemon: settings, then the parts from the bottom to the top, then it waits for a signal and
// takes them down again.
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/base/reason.h"
#include "engine/base/status_macros.h"
#include "engine/base/text.h"
#include "engine/engine.h"
#include "google/protobuf/stubs/logging.h"
#include "service/config.h"
#include "service/domain/domain.h"
#include "service/executor.h"
#include "service/log.h"
#include "service/notify.h"
#include "service/server.h"
#include "service/store/sqlite_store.h"

namespace gabion::service {
namespace {

constexpr int kExecutorThreads = 32;  // that mostly wait for the disk, several for one commit
constexpr std::chrono::milliseconds kGrace{5'000};  // for calls under way at the end
constexpr uint64_t kMaxInspectBytes = kMiB;         // as the rules in inspect.proto say

constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;

// Blocks the signals that end the daemon, for this thread and all that it starts, so that only
// sigwait() sees them.
sigset_t BlockSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);  // a client that has gone is an error of the write
  signal(SIGXFSZ, SIG_IGN);  // a file size limit is an error of the write
  return signals;
}

// Whoever runs out of files cannot open images, and gRPC gives a listener up whose accept() finds
// none: for good. So NBD connections, which are bounded, must fit into what the process may open,
// which is as much as its hard limit allows.
absl::Status ReserveFiles(const Config& config) {
  // A connection holds two files while it negotiates.
  constexpr uint64_t kFilesPerConnection = 2;
  constexpr uint64_t kOthers = 256;  // images, gRPC connections, the store, rings and pipes
  rlimit files;
  if (getrlimit(RLIMIT_NOFILE, &files) != 0) return absl::ErrnoToStatus(errno, "getrlimit");
  const uint64_t needed = config.max_connections * kFilesPerConnection + kOthers;
  if (files.rlim_max < needed) {
    return absl::FailedPreconditionError(
        absl::StrCat("max-connections ", config.max_connections, " needs ", needed,
                     " open files, but this process may open ", files.rlim_max,
                     ": raise that limit (ulimit -Hn, LimitNOFILE=), or lower max-connections."));
  }
  files.rlim_cur = files.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &files) != 0) return absl::ErrnoToStatus(errno, "setrlimit");
  return absl::OkStatus();
}

absl::Status MakeDirectory(const std::string& path) {
  if (mkdir(path.c_str(), 0700) == 0) return absl::OkStatus();
  struct stat status;
  if (errno == EEXIST && stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode)) {
    return absl::OkStatus();
  }
  if (errno == EEXIST) {
    return absl::FailedPreconditionError(absl::StrCat(path, " is not a directory."));
  }
  return absl::ErrnoToStatus(errno, absl::StrCat("Cannot create the directory ", path));
}

engine::IoDriver DriverOf(IoDriver driver) {
  switch (driver) {
    case IoDriver::kIoUring:
      return engine::IoDriver::kIoUring;
    case IoDriver::kThreads:
      return engine::IoDriver::kThreads;
    case IoDriver::kAuto:
      break;
  }
  return engine::IoDriver::kAuto;
}

engine::EngineOptions EngineOptionsOf(const Config& config) {
  engine::EngineOptions options;
  options.shards = config.shards;
  options.io_driver = DriverOf(config.io_driver);
  options.poll_before_sleep = std::chrono::microseconds(config.poll_us);
  options.direct_io = config.direct_io;
  options.secrets_directory = config.secrets_directory;
  options.qcow2_cache_per_image = ByteCount{config.qcow2_cache_bytes_per_image};
  options.qcow2_cache = ByteCount{config.qcow2_cache_bytes};
  options.nbd.unix_path = config.nbd_socket;
  options.nbd.unix_mode = config.nbd_socket_mode;
  if (config.nbd_listen.has_value()) {
    const std::string& host = config.nbd_listen->host;
    options.nbd.tcp_host = host == "localhost" ? "127.0.0.1" : host;
    options.nbd.tcp_port = config.nbd_listen->port;
  }
  options.nbd.handshake_timeout = std::chrono::seconds(config.handshake_timeout_s);
  options.nbd.max_connections = config.max_connections;
  options.nbd.max_requests_in_flight = config.max_inflight_requests;
  options.nbd.max_bytes_in_flight = ByteCount{config.max_inflight_bytes_per_connection};
  options.nbd.max_bytes_in_flight_total = ByteCount{config.max_inflight_bytes};
  return options;
}

v1::ServerInfo FactsOf(const Config& config) {
  v1::ServerInfo facts;
  facts.set_version(GABION_VERSION);
  facts.set_direct_io(config.direct_io);
  v1::ServerLimits& limits = *facts.mutable_limits();
  limits.set_max_connections(config.max_connections);
  limits.set_max_connections_per_export(config.max_connections_per_export);
  limits.set_max_inflight_requests_per_connection(config.max_inflight_requests);
  limits.set_max_inflight_bytes_per_connection(config.max_inflight_bytes_per_connection);
  limits.set_max_inflight_bytes(config.max_inflight_bytes);
  limits.mutable_handshake_timeout()->set_seconds(config.handshake_timeout_s);
  limits.set_max_inspect_bytes(kMaxInspectBytes);
  limits.set_max_exports(config.max_exports);
  return facts;
}

DomainOptions DomainOptionsOf(const Config& config) {
  DomainOptions options;
  options.pools = {{"pools/default", absl::StrCat(config.data_dir, "/images")}};
  options.exports.max_connections = config.max_connections_per_export;
  options.exports.max_exports = config.max_exports;
  options.facts = FactsOf(config);
  options.allow_fault_filters = config.allow_fault_filters;
  return options;
}

ServerOptions ServerOptionsOf(const Config& config) {
  ServerOptions options;
  options.unix_path = config.grpc_socket;
  options.tcp_insecure = config.insecure_grpc;
  if (config.grpc_listen.has_value()) {
    options.tcp_host = config.grpc_listen->host;
    options.tcp_port = config.grpc_listen->port;
  }
  return options;
}

void LogListening(JsonLogger& logger, const Server& server, const engine::EngineInfo& engine) {
  std::vector<std::string> nbd;
  if (!engine.nbd_unix_path.empty()) nbd.push_back(absl::StrCat("unix:", engine.nbd_unix_path));
  if (!engine.nbd_tcp_address.empty()) nbd.push_back(engine.nbd_tcp_address);
  const std::string shards = absl::StrCat(engine.shards);
  logger.Log(LogLevel::kInfo, "gabiond", "listening",
             {{"version", GABION_VERSION},
              {"grpc", absl::StrJoin(server.addresses(), ",")},
              {"nbd", absl::StrJoin(nbd, ",")},
              {"io_driver", engine.io_driver},
              {"shards", shards}});
}

// A manager that cannot be told is a matter for the log: what is asked of the daemon is to serve.
std::unique_ptr<Notifier> OpenNotifier(JsonLogger& logger) {
  absl::StatusOr<std::unique_ptr<Notifier>> notifier = Notifier::Open(ProcessEnvironment());
  if (notifier.ok()) return *std::move(notifier);
  logger.Log(LogLevel::kWarning, "notify", AsStd(notifier.status().message()));
  return std::make_unique<Notifier>();
}

void LogFailure(JsonLogger& logger, const absl::Status& told) {
  if (!told.ok()) logger.Log(LogLevel::kWarning, "notify", AsStd(told.message()));
}

// Everything from the data directory up, until a signal comes, and down again in reverse.
absl::Status Serve(const Config& config, JsonLogger& logger, const sigset_t& signals) {
  const std::unique_ptr<Notifier> notifier = OpenNotifier(logger);
  RETURN_IF_ERROR(ReserveFiles(config));
  RETURN_IF_ERROR(MakeDirectory(config.data_dir));
  RETURN_IF_ERROR(MakeDirectory(absl::StrCat(config.data_dir, "/images")));
  ASSIGN_OR_RETURN(const std::unique_ptr<MetadataStore> store,
                   OpenSqliteStore(absl::StrCat(config.data_dir, "/gabion.db")));
  ASSIGN_OR_RETURN(const std::unique_ptr<engine::Engine> engine,
                   engine::Engine::Start(EngineOptionsOf(config), logger));
  absl::StatusOr<std::unique_ptr<Domain>> domain =
      Domain::Open(*engine, *store, logger, DomainOptionsOf(config));
  if (!domain.ok()) {
    engine->Stop();
    return domain.status();
  }
  Executor executor(kExecutorThreads);
  Calls calls(executor, logger, (*domain)->requests(), (*domain)->operations());
  absl::StatusOr<std::unique_ptr<Server>> server =
      Server::Start(ServerOptionsOf(config), calls, **domain);
  if (server.ok()) {
    (*server)->SetReady();
    LogListening(logger, **server, engine->info());
    LogFailure(logger, notifier->Ready("Serving."));
    notifier->StartWatchdog([&executor](absl::AnyInvocable<void() &&> answer) {
      (void)executor.Run(std::move(answer));
    });
    int signal = 0;
    sigwait(&signals, &signal);
    logger.Log(LogLevel::kInfo, "gabiond", "stopping",
               {{"signal", signal == SIGTERM ? "SIGTERM" : "SIGINT"}});
    notifier->StopWatchdog();  // nobody waits for signs of life from what ends
    LogFailure(logger, notifier->Stopping("Draining."));
    (*server)->Drain();
    (*server)->Stop(kGrace);
  }
  executor.Stop();
  (*domain)->Stop();
  engine->Stop();
  if (!server.ok()) return server.status();
  logger.Log(LogLevel::kInfo, "gabiond", "stopped");
  return absl::OkStatus();
}

// What libprotobuf has to say, of texts that are not UTF-8, say, which callers are told anyway.
JsonLogger* protobuf_logger = nullptr;
void LogProtobuf(google::protobuf::LogLevel level, const char* /*file*/, int /*line*/,
                 const std::string& message) {
  const bool grave = level >= google::protobuf::LOGLEVEL_FATAL;
  protobuf_logger->Log(grave ? LogLevel::kError : LogLevel::kDebug, "protobuf", message);
}

int Main(const std::vector<std::string>& arguments) {
  const absl::StatusOr<CommandLine> line = ParseCommandLine(arguments, ProcessEnvironment());
  if (!line.ok()) {
    std::fprintf(stderr, "gabiond: %s\n", std::string(line.status().message()).c_str());
    return kExitUsage;
  }
  switch (line->action) {
    case CommandLine::Action::kHelp:
      std::fputs(HelpText().c_str(), stdout);
      return 0;
    case CommandLine::Action::kVersion:
      std::puts("gabiond " GABION_VERSION);
      return 0;
    case CommandLine::Action::kRun:
      break;
  }
  umask(0077);
  const sigset_t signals = BlockSignals();
  JsonLogger logger(line->config.log_level);
  protobuf_logger = &logger;
  google::protobuf::SetLogHandler(&LogProtobuf);
  const absl::Status status = Serve(line->config, logger, signals);
  google::protobuf::SetLogHandler(nullptr);
  if (status.ok()) return 0;
  logger.Log(LogLevel::kError, "gabiond", AsStd(status.message()));
  return kExitFailed;
}

}  // namespace
}  // namespace gabion::service

int main(int argc, char** argv) {
  return gabion::service::Main(std::vector<std::string>(argv + 1, argv + argc));
}
