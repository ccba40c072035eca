// gabionctl without its process.
#pragma once

#include <iosfwd>
#include <map>
#include <string>
#include <vector>

namespace gabion::service::ctl {

// Exit status for a wrong command line or request (EX_USAGE).
inline constexpr int kUsage = 64;
// Exit status of `health` for a service that does not serve (EX_UNAVAILABLE).
inline constexpr int kNotServing = 69;

// Runs one command; returns the exit status. `arguments`: without the program's name.
int Run(const std::vector<std::string>& arguments,
        const std::map<std::string, std::string>& environment, std::istream& in, std::ostream& out,
        std::ostream& err);

}  // namespace gabion::service::ctl
