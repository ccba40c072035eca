// What gabionctl's command line asks for.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

namespace gabion::service::ctl {

struct Command {
  enum class Kind { kHelp, kVersion, kList, kDescribe, kCall, kHealth };
  Kind kind = Kind::kHelp;
  std::string server;            // "unix:PATH" or "HOST:PORT"
  std::optional<int> timeout_s;  // 0: none; unset: the method's default
  bool print_grpcurl = false;    // kCall: print, do not call
  std::string target;            // kDescribe, kCall, kHealth (may be empty there)
  std::string request = "{}";    // kCall: JSON, "-" or "@FILE"
};

// The command, or (in *problem) a sentence that says what is wrong.
std::optional<Command> ParseCommand(const std::vector<std::string>& arguments,
                                    const std::map<std::string, std::string>& environment,
                                    std::string* problem);

std::string HelpText();

}  // namespace gabion::service::ctl
