// Where the engine says what an operator should know. The service decides where it goes.
#pragma once

#include <string_view>

namespace gabion {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

// Implementations are thread-safe and never block for long; they outlive whoever logs to them.
class Logger {
 public:
  virtual ~Logger() = default;
  // `component`: the part that speaks, e.g. "nbd"; `message`: one sentence without a line break.
  virtual void Log(LogLevel level, std::string_view component, std::string_view message) = 0;
};

// Drops everything.
Logger& NullLogger();

}  // namespace gabion
