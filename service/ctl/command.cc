#include "service/ctl/command.h"

#include <charconv>
#include <string_view>

namespace gabion::service::ctl {
namespace {

constexpr int kMaxTimeout = 86400;

// Sorts arguments into flags and words.
class Parser {
 public:
  Parser(const std::vector<std::string>& arguments, std::string* problem)
      : arguments_(arguments), problem_(problem) {}

  bool Parse(Command* command) {
    for (size_t i = 0; i < arguments_.size(); ++i) {
      const std::string& argument = arguments_[i];
      if (!argument.starts_with("--") && argument != "-h") {
        words.push_back(argument);
      } else if (!TakeFlag(argument, &i, command)) {
        return false;
      }
    }
    return true;
  }

  bool Fail(std::string text) {
    *problem_ = std::move(text) + "; see gabionctl --help";
    return false;
  }

  std::vector<std::string> words;
  bool help = false;
  bool version = false;

 private:
  bool TakeFlag(const std::string& argument, size_t* at, Command* command) {
    const size_t equals = argument.find('=');
    const std::string flag = argument.substr(0, equals);
    if (argument == "--help" || argument == "-h") return help = true;
    if (argument == "--version") return version = true;
    if (argument == "--print-grpcurl") return command->print_grpcurl = true;
    if (flag != "--server" && flag != "--timeout") return Fail(flag + ": there is no such flag");
    if (equals == std::string::npos && *at + 1 == arguments_.size()) {
      return Fail(flag + ": needs a value");
    }
    const std::string value =
        equals == std::string::npos ? arguments_[++*at] : argument.substr(equals + 1);
    return flag == "--server" ? SetServer(value, command) : SetTimeout(value, command);
  }

  bool SetServer(const std::string& value, Command* command) {
    if (value.empty() || value == "unix:") return Fail("--server: must be unix:PATH or HOST:PORT");
    command->server = value;
    return true;
  }

  bool SetTimeout(const std::string& value, Command* command) {
    int seconds = -1;
    const char* end = value.data() + value.size();
    const auto [stop, error] = std::from_chars(value.data(), end, seconds);
    if (error != std::errc() || stop != end || seconds < 0 || seconds > kMaxTimeout) {
      return Fail("--timeout: must be a number of seconds from 0 to 86400, is \"" + value + "\"");
    }
    command->timeout_s = seconds;
    return true;
  }

  const std::vector<std::string>& arguments_;
  std::string* const problem_;
};

bool TakeWords(Parser& parser, Command* command) {
  const std::vector<std::string>& words = parser.words;
  if (words.empty()) return parser.Fail("a command must be given: call, health, list or describe");
  if (words[0] == "list") {
    command->kind = Command::Kind::kList;
    return words.size() == 1 || parser.Fail("list takes no arguments");
  }
  if (words[0] == "describe") {
    command->kind = Command::Kind::kDescribe;
    if (words.size() != 2) return parser.Fail("describe takes one SERVICE, METHOD or MESSAGE");
    command->target = words[1];
    return true;
  }
  if (words[0] == "health") {
    command->kind = Command::Kind::kHealth;
    if (words.size() > 2) return parser.Fail("health takes at most one SERVICE");
    if (words.size() == 2) command->target = words[1];
    return true;
  }
  if (words[0] != "call") return parser.Fail("\"" + words[0] + "\": there is no such command");
  command->kind = Command::Kind::kCall;
  if (words.size() < 2 || words.size() > 3) {
    return parser.Fail("call takes SERVICE/METHOD and at most one JSON text");
  }
  command->target = words[1];
  if (words.size() == 3) command->request = words[2];
  return true;
}

}  // namespace

std::optional<Command> ParseCommand(const std::vector<std::string>& arguments,
                                    const std::map<std::string, std::string>& environment,
                                    std::string* problem) {
  Command command;
  const auto variable = environment.find("GABION_SERVER");
  command.server = variable == environment.end() || variable->second.empty() ? "unix:./gabiond.sock"
                                                                             : variable->second;
  Parser parser(arguments, problem);
  if (!parser.Parse(&command)) return std::nullopt;
  if (parser.help) {
    command.kind = Command::Kind::kHelp;
  } else if (parser.version) {
    command.kind = Command::Kind::kVersion;
  } else if (!TakeWords(parser, &command)) {
    return std::nullopt;
  }
  return command;
}

std::string HelpText() {
  return R"(gabionctl: calls gabiond.

usage: gabionctl [FLAG...] call SERVICE/METHOD [REQUEST]
       gabionctl [FLAG...] health [SERVICE]
       gabionctl list
       gabionctl describe SERVICE|METHOD|MESSAGE|ENUM

  call      Calls a method. REQUEST is a JSON object, "-" to read it from standard input, or @FILE;
            left out, it is {}. The answer is printed as JSON; a stream as one JSON object a line.
            64-bit numbers are strings in JSON, bytes are base64, durations "1.5s". Field names may
            be written fieldName or field_name. A field that does not exist is an error.
  health    Asks grpc.health.v1.Health how SERVICE is and prints the answer: SERVING, or not. It
            is "readiness" or a service of the API; left out, the process itself.
  list      Prints the methods that can be called.
  describe  Prints a definition. Names of the package gabion.v1 need no package.

  --server ADDRESS   unix:PATH or HOST:PORT. Left out: the variable GABION_SERVER; without that,
                     unix:./gabiond.sock.
  --timeout SECONDS  When to give up; 0: never. Left out: 30, and 0 for streams.
  --print-grpcurl    Prints the call for grpcurl, and does not make it.
  --version          Prints the version and exits.
  --help             Prints this and exits.

Exit status: 0 if the call succeeded. Else the gRPC code of its error (5 is NOT_FOUND), which is
printed on standard error as JSON with all its details. 69 if the answer to health is not SERVING.
64 if the command line or the request is wrong, in which case nothing was called.
)";
}

}  // namespace gabion::service::ctl
