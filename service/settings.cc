#include "service/settings.h"

#include <arpa/inet.h>

#include <algorithm>
#include <cctype>
#include <charconv>

#include "engine/base/units.h"

namespace gabion::service {
namespace {

constexpr uint16_t kNbdPort = 10809;  // registered with IANA for NBD
constexpr uint64_t kSmallestCacheBytes = 1u << 20;
constexpr uint64_t kLargestRequestBytes = 32 * kMiB;

std::string Quoted(std::string_view text) { return "\"" + std::string(text) + "\""; }

template <typename Number>
bool ParseNumber(std::string_view text, int base, Number* number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *number, base);
  return error == std::errc() && end == text.data() + text.size() && !text.empty();
}

template <typename Number>
std::string SetNumber(std::string_view text, uint64_t min, uint64_t max, Number* to) {
  uint64_t number = 0;
  if (!ParseNumber(text, 10, &number) || number < min || number > max) {
    return "must be a number from " + std::to_string(min) + " to " + std::to_string(max) + ", is " +
           Quoted(text);
  }
  *to = static_cast<Number>(number);
  return {};
}

// "65536", "64KiB", "64MiB", "1GiB".
std::string SetBytes(std::string_view text, uint64_t min, uint64_t* to) {
  constexpr uint64_t kMax = 1024 * kGiB;
  constexpr std::pair<std::string_view, uint64_t> kUnits[] = {
      {"KiB", kKiB}, {"MiB", kMiB}, {"GiB", kGiB}};
  std::string_view digits = text;
  uint64_t unit = 1;
  for (const auto& [suffix, factor] : kUnits) {
    if (!digits.ends_with(suffix)) continue;
    digits.remove_suffix(suffix.size());
    unit = factor;
  }
  uint64_t number = 0;
  if (!ParseNumber(digits, 10, &number) || number > kMax / unit || number * unit < min) {
    return "must be a number of bytes, also with KiB, MiB or GiB behind it, from " +
           std::to_string(min) + " to " + std::to_string(kMax) + ", is " + Quoted(text);
  }
  *to = number * unit;
  return {};
}

std::string SetText(std::string_view text, std::string* to) {
  if (text.empty()) return "must not be empty";
  *to = std::string(text);
  return {};
}

std::string SetBool(std::string_view text, bool* to) {
  *to = text == "true";
  return text == "true" || text == "false" ? "" : "must be true or false, is " + Quoted(text);
}

// "HOST:PORT", "[ADDRESS]:PORT"; without ":PORT" if there is a default port.
std::string SetHostPort(std::string_view text, std::optional<uint16_t> default_port,
                        std::optional<HostPort>* to) {
  const std::string form = default_port ? "HOST[:PORT]" : "HOST:PORT";
  const std::string complaint = "must have the form " + form + ", is " + Quoted(text);
  HostPort parsed;
  std::string_view rest = text;
  if (rest.starts_with('[')) {
    const size_t close = rest.find(']');
    if (close == std::string_view::npos) return complaint;
    parsed.host = std::string(rest.substr(1, close - 1));
    rest.remove_prefix(close + 1);
  } else {
    parsed.host = std::string(rest.substr(0, rest.find(':')));
    rest.remove_prefix(parsed.host.size());
  }
  if (parsed.host.empty()) return complaint;
  if (rest.empty() && default_port) {
    parsed.port = *default_port;
  } else if (!rest.starts_with(':') || !ParseNumber(rest.substr(1), 10, &parsed.port)) {
    return complaint + (text.front() != '[' && std::count(text.begin(), text.end(), ':') > 1
                            ? " (IPv6 addresses go in brackets)"
                            : "");
  }
  *to = std::move(parsed);
  return {};
}

// Which addresses it may be depends on another setting: see config.
std::string SetGrpcListen(std::string_view text, Config* config) {
  return SetHostPort(text, std::nullopt, &config->grpc_listen);
}

// The data plane listens on literal addresses only: names would have to be resolved.
std::string SetNbdListen(std::string_view text, Config* config) {
  std::string problem = SetHostPort(text, kNbdPort, &config->nbd_listen);
  if (!problem.empty()) return problem;
  std::string& host = config->nbd_listen->host;
  if (host == "localhost") host = "127.0.0.1";
  in6_addr address;  // room for either kind
  if (inet_pton(AF_INET, host.c_str(), &address) == 1) return {};
  if (inet_pton(AF_INET6, host.c_str(), &address) == 1) return {};
  return "must be an IP address or localhost, is " + Quoted(text);
}

std::string SetMode(std::string_view text, Config* config) {
  if (ParseNumber(text, 8, &config->nbd_socket_mode) && config->nbd_socket_mode <= 0777) return {};
  return "must be an octal number from 0 to 777, is " + Quoted(text);
}

template <typename Value, size_t n>
std::string SetChoice(std::string_view text, const std::pair<std::string_view, Value> (&choices)[n],
                      Value* to) {
  std::string names;
  for (const auto& [name, value] : choices) {
    if (name == text) {
      *to = value;
      return {};
    }
    names += (names.empty() ? "" : ", ") + std::string(name);
  }
  return "must be one of " + names + ", is " + Quoted(text);
}

std::string SetIoDriver(std::string_view text, Config* config) {
  constexpr std::pair<std::string_view, IoDriver> kChoices[] = {
      {"auto", IoDriver::kAuto}, {"io_uring", IoDriver::kIoUring}, {"threads", IoDriver::kThreads}};
  return SetChoice(text, kChoices, &config->io_driver);
}

std::string SetLogLevel(std::string_view text, Config* config) {
  constexpr std::pair<std::string_view, LogLevel> kChoices[] = {{"debug", LogLevel::kDebug},
                                                                {"info", LogLevel::kInfo},
                                                                {"warning", LogLevel::kWarning},
                                                                {"error", LogLevel::kError}};
  return SetChoice(text, kChoices, &config->log_level);
}

using Text = std::string_view;

constexpr Setting kSettings[] = {
    {"data-dir", "DIR", "",
     "Required. Where everything is kept: the metadata store, and images of "
     "pools/default in DIR/images. Created if need be. One daemon at a time.",
     [](Text text, Config* c) { return SetText(text, &c->data_dir); }},
    {"grpc-socket", "PATH", "DATA-DIR/gabiond.sock",
     "Unix socket of the control plane, mode 0600. At most 107 bytes.",
     [](Text text, Config* c) { return SetText(text, &c->grpc_socket); }},
    {"grpc-listen", "HOST:PORT", "none",
     "TCP address of the control plane as well; loopback only, unless insecure-grpc is set. Port "
     "0: "
     "any free port, see the log.",
     SetGrpcListen},
    {"insecure-grpc", "", "false",
     "Lets grpc-listen be any IP address. There is neither encryption nor a check of who calls: "
     "whoever reaches it may do anything. For networks that let nobody else in.",
     [](Text text, Config* c) { return SetBool(text, &c->insecure_grpc); }},
    {"nbd-socket", "PATH", "DATA-DIR/nbd.sock", "Unix socket of the data plane. At most 107 bytes.",
     [](Text text, Config* c) { return SetText(text, &c->nbd_socket); }},
    {"nbd-socket-mode", "OCTAL", "600", "Permissions of that socket: who may connect.", SetMode},
    {"nbd-listen", "HOST[:PORT]", "none",
     "TCP address of the data plane as well, port 10809 unless it is given. Serves the exports "
     "whose access says TRANSPORT_PLAINTEXT_TCP. Port 0: any free port, see the log.",
     SetNbdListen},
    {"shards", "N", "0", "Threads that serve NBD, 0 to 256; 0: CPUs less one, at least 1.",
     [](Text text, Config* c) { return SetNumber(text, 0, 256, &c->shards); }},
    {"io-driver", "DRIVER", "auto",
     "How files are read and written: io_uring; threads; auto: io_uring where the kernel allows "
     "it.",
     SetIoDriver},
    {"direct-io", "", "false", "Opens the files of raw images past the page cache (O_DIRECT).",
     [](Text text, Config* c) { return SetBool(text, &c->direct_io); }},
    {"poll-us", "N", "50",
     "Microseconds, 0 to 1000, that a shard polls for work before it sleeps: lower latency for "
     "more CPU time.",
     [](Text text, Config* c) { return SetNumber(text, 0, 1000, &c->poll_us); }},
    {"handshake-timeout", "SECONDS", "10",
     "1 to 3600. NBD connections that have not finished their handshake by then are closed.",
     [](Text text, Config* c) { return SetNumber(text, 1, 3600, &c->handshake_timeout_s); }},
    {"max-connections", "N", "1024",
     "NBD connections in total, 1 to 65536. Each needs two open files; see ulimit -n.",
     [](Text text, Config* c) { return SetNumber(text, 1, 65536, &c->max_connections); }},
    {"max-connections-per-export", "N", "256", "NBD connections to one export, 1 to 65536.",
     [](Text text, Config* c) {
       return SetNumber(text, 1, 65536, &c->max_connections_per_export);
     }},
    {"max-exports", "N", "16384", "Exports, 1 to 1000000; another one is refused.",
     [](Text text, Config* c) { return SetNumber(text, 1, 1'000'000, &c->max_exports); }},
    {"max-inflight-requests", "N", "128",
     "Requests of one NBD connection that are worked on at once, 1 to 65536; more stay in the "
     "socket.",
     [](Text text, Config* c) { return SetNumber(text, 1, 65536, &c->max_inflight_requests); }},
    {"max-inflight-bytes-per-connection", "BYTES", "64MiB",
     "Data of one NBD connection's requests that are worked on at once, at least 32MiB.",
     [](Text text, Config* c) {
       return SetBytes(text, kLargestRequestBytes, &c->max_inflight_bytes_per_connection);
     }},
    {"max-inflight-bytes", "BYTES", "1GiB",
     "The same over all connections; not below the one above.",
     [](Text text, Config* c) {
       return SetBytes(text, kLargestRequestBytes, &c->max_inflight_bytes);
     }},
    {"qcow2-cache-bytes-per-image", "BYTES", "32MiB",
     "Memory for the tables of one qcow2 image that is open, at least 1MiB; what has changed and "
     "is not written yet comes on top, some MiB.",
     [](Text text, Config* c) {
       return SetBytes(text, kSmallestCacheBytes, &c->qcow2_cache_bytes_per_image);
     }},
    {"qcow2-cache-bytes", "BYTES", "256MiB",
     "The same over all images, at least 1MiB; each image keeps 128KiB whatever this says.",
     [](Text text, Config* c) {
       return SetBytes(text, kSmallestCacheBytes, &c->qcow2_cache_bytes);
     }},
    {"secrets-directory", "DIR", "",
     "Where the files with the passphrases of luks filters are. Left out: no such filters.",
     [](Text text, Config* c) { return SetText(text, &c->secrets_directory); }},
    {"allow-fault-filters", "", "false",
     "Lets filters of the kind fault be made, which make requests fail on purpose: for tests of "
     "clients. Exports that have one cannot be served without it.",
     [](Text text, Config* c) { return SetBool(text, &c->allow_fault_filters); }},
    {"log-level", "LEVEL", "info", "The least that is logged: debug, info, warning or error.",
     SetLogLevel},
};

}  // namespace

bool IsLoopback(std::string_view host) {
  uint8_t octet = 0;
  if (host == "localhost" || host == "::1") return true;
  if (!host.starts_with("127.") || std::count(host.begin(), host.end(), '.') != 3) return false;
  for (host.remove_prefix(4); !host.empty();) {
    const std::string_view part = host.substr(0, host.find('.'));
    if (!ParseNumber(part, 10, &octet)) return false;
    host.remove_prefix(std::min(part.size() + 1, host.size()));
  }
  return true;
}

std::span<const Setting> AllSettings() { return kSettings; }

const Setting* FindSetting(std::string_view name) {
  for (const Setting& setting : kSettings) {
    if (setting.name == name) return &setting;
  }
  return nullptr;
}

}  // namespace gabion::service
