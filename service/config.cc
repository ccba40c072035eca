#include "service/config.h"

#include <arpa/inet.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/base/text.h"
#include "service/settings.h"

namespace gabion::service {
namespace {

constexpr size_t kMaxSocketPath = sizeof(sockaddr_un::sun_path) - 1;  // 107 on Linux
constexpr std::string_view kConfigVariable = "GABION_CONFIG";

using Problems = std::vector<std::string>;

// One value and where it comes from.
struct Given {
  std::string text;
  std::string source;  // "--shards", "GABION_SHARDS", "FILE:3: shards"
};
using Values = std::map<std::string, Given, std::less<>>;  // by setting

std::string VariableOf(std::string_view setting) {
  std::string name = "GABION_";
  for (char c : setting) {
    name += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  return name;
}

std::string_view Trim(std::string_view text) {
  constexpr std::string_view kBlank = " \t\r";
  const size_t first = text.find_first_not_of(kBlank);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kBlank) - first + 1);
}

// The flags of one command line.
class Flags {
 public:
  explicit Flags(const std::vector<std::string>& arguments) : arguments_(arguments) {}

  void Parse(Problems* problems) {
    for (next_ = 0; next_ < arguments_.size();) ParseOne(arguments_[next_++], problems);
  }

  CommandLine::Action action = CommandLine::Action::kRun;
  std::optional<std::string> config_file;
  Values values;

 private:
  void ParseOne(const std::string& argument, Problems* problems) {
    if (argument == "--help" || argument == "-h") {
      action = CommandLine::Action::kHelp;
    } else if (argument == "--version") {
      action = CommandLine::Action::kVersion;
    } else if (!argument.starts_with("--")) {
      problems->push_back("\"" + argument + "\": gabiond takes flags only; see --help");
    } else {
      ParseFlag(argument, problems);
    }
  }

  void ParseFlag(const std::string& argument, Problems* problems) {
    const size_t equals = argument.find('=');
    const std::string flag = argument.substr(0, equals);
    const std::string name = flag.substr(2);
    const Setting* setting = FindSetting(name);
    if (setting == nullptr && name != "config") {
      problems->push_back(flag + ": there is no such flag; see --help");
      return;
    }
    std::string value = "true";
    if (equals != std::string::npos) {
      value = argument.substr(equals + 1);
    } else if (setting == nullptr || !setting->argument.empty()) {
      if (next_ == arguments_.size()) {
        problems->push_back(flag + ": needs a value");
        return;
      }
      value = arguments_[next_++];
    }
    if (setting == nullptr) {
      config_file = value;
    } else if (!values.emplace(name, Given{value, flag}).second) {
      problems->push_back(flag + ": given more than once");
    }
  }

  const std::vector<std::string>& arguments_;
  size_t next_ = 0;
};

void ReadFile(const std::string& path, Values* values, Problems* problems) {
  std::ifstream file(path);
  if (!file) {
    problems->push_back(absl::StrCat("config: cannot read ", path, ": ", std::strerror(errno)));
    return;
  }
  std::string text;
  for (int number = 1; std::getline(file, text); ++number) {
    const std::string_view line = Trim(text);
    if (line.empty() || line.front() == '#') continue;
    const std::string at = absl::StrCat(path, ":", number, ": ");
    const size_t equals = line.find('=');
    if (equals == std::string_view::npos) {
      problems->push_back(at + "must have the form \"setting = value\"");
      continue;
    }
    const std::string name(Trim(line.substr(0, equals)));
    if (FindSetting(name) == nullptr) {
      problems->push_back(at + name + ": there is no such setting");
    } else if (!values->emplace(name, Given{std::string(Trim(line.substr(equals + 1))), at + name})
                    .second) {
      problems->push_back(at + name + ": given more than once");
    }
  }
  if (file.bad()) problems->push_back(absl::StrCat("config: reading ", path, " failed"));
}

// Variables that belong to no setting are left alone: schedulers put their own there
// (GABION_SERVICE_HOST and the like).
Values FromEnvironment(const std::map<std::string, std::string>& environment) {
  Values values;
  for (const Setting& setting : AllSettings()) {
    const auto found = environment.find(VariableOf(setting.name));
    if (found == environment.end()) continue;
    values.emplace(setting.name, Given{found->second, found->first});
  }
  return values;
}

void Apply(const Values& values, Config* config, Problems* problems) {
  for (const Setting& setting : AllSettings()) {
    const auto found = values.find(setting.name);
    if (found == values.end()) continue;
    const std::string problem = setting.set(found->second.text, config);
    if (!problem.empty()) problems->push_back(found->second.source + ": " + problem);
  }
}

void CheckSocketPath(std::string_view setting, const std::string& path, Problems* problems) {
  if (path.size() <= kMaxSocketPath) return;
  problems->push_back(absl::StrCat(AsAbsl(setting), ": the path of a Unix socket has at most ",
                                   kMaxSocketPath, " bytes, this one has ", path.size(), ": ",
                                   path));
}

// The control plane has no credentials on TCP: only who asks for that by name gets it.
void CheckGrpcListen(const Config& config, Problems* problems) {
  if (!config.grpc_listen.has_value() || IsLoopback(config.grpc_listen->host)) return;
  const std::string is = ", is \"" + config.grpc_listen->ToString() + "\"";
  in6_addr address;  // room for either kind
  if (!config.insecure_grpc) {
    problems->push_back(
        "grpc-listen: must be a loopback address (localhost, 127.x.y.z or [::1]), because whoever "
        "reaches it may do anything; insecure-grpc allows others" +
        is);
  } else if (inet_pton(AF_INET, config.grpc_listen->host.c_str(), &address) != 1 &&
             inet_pton(AF_INET6, config.grpc_listen->host.c_str(), &address) != 1) {
    problems->push_back("grpc-listen: must be an IP address or localhost" + is);
  }
}

// What single values cannot say.
void Complete(Config* config, Problems* problems) {
  CheckGrpcListen(*config, problems);
  if (config->data_dir.empty()) {
    problems->push_back("data-dir: must be set (--data-dir DIR, or GABION_DATA_DIR)");
    return;
  }
  if (config->grpc_socket.empty()) config->grpc_socket = config->data_dir + "/gabiond.sock";
  if (config->nbd_socket.empty()) config->nbd_socket = config->data_dir + "/nbd.sock";
  CheckSocketPath("grpc-socket", config->grpc_socket, problems);
  CheckSocketPath("nbd-socket", config->nbd_socket, problems);
  if (config->grpc_socket == config->nbd_socket) {
    problems->push_back("nbd-socket: must not be the same path as grpc-socket");
  }
  if (config->max_inflight_bytes < config->max_inflight_bytes_per_connection) {
    problems->push_back(
        absl::StrCat("max-inflight-bytes: must not be below "
                     "max-inflight-bytes-per-connection, which is ",
                     config->max_inflight_bytes_per_connection));
  }
}

// `text` in lines of at most 100 columns, each behind `indent` blanks.
std::string Wrapped(std::string_view text, size_t indent) {
  std::string out;
  std::string line;
  const std::string blanks(indent, ' ');
  while (!text.empty()) {
    const std::string_view word = text.substr(0, text.find(' '));
    text.remove_prefix(std::min(word.size() + 1, text.size()));
    if (!line.empty() && indent + line.size() + 1 + word.size() > 100) {
      out += blanks + line + "\n";
      line.clear();
    }
    line += (line.empty() ? "" : " ") + std::string(word);
  }
  return out + blanks + line + "\n";
}

}  // namespace

std::string HostPort::ToString() const {
  const bool brackets = host.find(':') != std::string::npos;
  return (brackets ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

absl::StatusOr<CommandLine> ParseCommandLine(
    const std::vector<std::string>& arguments,
    const std::map<std::string, std::string>& environment) {
  Problems problems;
  Flags flags(arguments);
  flags.Parse(&problems);
  CommandLine line;
  line.action = flags.action;
  if (line.action != CommandLine::Action::kRun) return line;
  Values values = std::move(flags.values);
  values.merge(FromEnvironment(environment));  // what is there already stays
  const auto variable = environment.find(std::string(kConfigVariable));
  if (!flags.config_file && variable != environment.end()) flags.config_file = variable->second;
  if (flags.config_file) {
    Values from_file;
    ReadFile(*flags.config_file, &from_file, &problems);
    values.merge(from_file);
  }
  Apply(values, &line.config, &problems);
  Complete(&line.config, &problems);
  if (problems.empty()) return line;
  return absl::InvalidArgumentError(absl::StrJoin(problems, "\n"));
}

std::string HelpText() {
  std::string text =
      "gabiond: creates disk images on request over gRPC and serves them over NBD.\n\n"
      "usage: gabiond --data-dir DIR [FLAG...]\n\n"
      "A setting comes from its flag, else from its environment variable, else from the file "
      "named\n"
      "by --config (lines \"setting = value\"; empty lines and lines that start with # are\n"
      "ignored), else it has its default.\n\n";
  for (const Setting& setting : AllSettings()) {
    absl::StrAppend(&text, "  --", AsAbsl(setting.name));
    if (!setting.argument.empty()) absl::StrAppend(&text, " ", AsAbsl(setting.argument));
    std::string origin = VariableOf(setting.name);
    if (!setting.fallback.empty()) absl::StrAppend(&origin, "; default ", AsAbsl(setting.fallback));
    absl::StrAppend(&text, "\n", Wrapped(origin, 6), Wrapped(setting.help, 6));
  }
  absl::StrAppend(&text, "  --config FILE\n", Wrapped(kConfigVariable, 6),
                  Wrapped("File with settings.", 6), "  --version\n",
                  Wrapped("Prints the version and exits.", 6), "  --help\n",
                  Wrapped("Prints this and exits.", 6));
  return text;
}

std::map<std::string, std::string> ProcessEnvironment() {
  std::map<std::string, std::string> environment;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    const size_t equals = text.find('=');
    if (equals == std::string_view::npos) continue;
    environment.emplace(text.substr(0, equals), text.substr(equals + 1));
  }
  return environment;
}

}  // namespace gabion::service
