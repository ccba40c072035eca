// How gabiond is set up: flags over environment over a file over defaults. Everything is checked
// once, before anything starts, and every problem is reported at once.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/base/log.h"

namespace gabion::service {

// A TCP address to listen on. Port 0: one that the kernel chooses.
struct HostPort {
  std::string host;  // a name or an address, without the brackets of IPv6
  uint16_t port = 0;

  // "HOST:PORT", with brackets where they are needed.
  std::string ToString() const;
  friend bool operator==(const HostPort&, const HostPort&) = default;
};

enum class IoDriver { kAuto, kIoUring, kThreads };

struct Config {
  std::string data_dir;
  std::string grpc_socket;              // path
  std::optional<HostPort> grpc_listen;  // unset: no TCP
  bool insecure_grpc = false;           // grpc_listen need not be loopback
  std::string nbd_socket;               // path
  std::optional<HostPort> nbd_listen;   // unset: no TCP
  uint32_t nbd_socket_mode = 0600;      // permission bits
  uint32_t shards = 0;                  // 0: CPUs less one, at least 1
  IoDriver io_driver = IoDriver::kAuto;
  bool direct_io = false;
  uint32_t poll_us = 50;  // busy polling before a shard sleeps
  uint32_t handshake_timeout_s = 10;
  uint32_t max_connections = 1024;
  uint32_t max_connections_per_export = 256;
  uint32_t max_exports = 16'384;
  uint32_t max_inflight_requests = 128;                    // per connection
  uint64_t max_inflight_bytes_per_connection = 64u << 20;  // bytes
  uint64_t max_inflight_bytes = 1u << 30;                  // bytes, all connections
  uint64_t qcow2_cache_bytes_per_image = 32u << 20;        // bytes
  uint64_t qcow2_cache_bytes = 256u << 20;                 // bytes, all images
  bool allow_fault_filters = false;                        // kind `fault` of filters
  std::string secrets_directory;                           // path; empty: no kind `luks`
  LogLevel log_level = LogLevel::kInfo;
};

// What the command line asks for.
struct CommandLine {
  enum class Action { kRun, kHelp, kVersion };
  Action action = Action::kRun;
  Config config;  // kRun only
};

// `arguments`: without the program's name. `environment`: all variables. Reads the file named by
// --config or GABION_CONFIG, if there is one. INVALID_ARGUMENT lists every problem, one a line,
// each with the name of the setting and where it was set.
absl::StatusOr<CommandLine> ParseCommandLine(const std::vector<std::string>& arguments,
                                             const std::map<std::string, std::string>& environment);

// What --help prints: every setting with its flag, variable, default and meaning.
std::string HelpText();

// The variables of this process.
std::map<std::string, std::string> ProcessEnvironment();

}  // namespace gabion::service
