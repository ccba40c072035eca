// The daemon's log: one JSON object a line.
#pragma once

#include <atomic>
#include <initializer_list>
#include <string_view>
#include <utility>

#include "engine/base/log.h"

namespace gabion::service {

// Writes {"ts", "level", "component", "msg", ...} to a file descriptor, each line with one write().
// Owned by the daemon's main function; outlives everybody who logs. Thread-safe.
class JsonLogger final : public Logger {
 public:
  using Field = std::pair<std::string_view, std::string_view>;  // key, value

  // `fd` stays the caller's; 2 is standard error. What is below `level` is dropped.
  explicit JsonLogger(LogLevel level, int fd = 2) : fd_(fd), level_(level) {}

  void Log(LogLevel level, std::string_view component, std::string_view message) override {
    Log(level, component, message, {});
  }
  // With facts of their own: export, connection, request_id, code, reason, ...
  void Log(LogLevel level, std::string_view component, std::string_view message,
           std::initializer_list<Field> fields);

  void SetLevel(LogLevel level) { level_.store(level, std::memory_order_relaxed); }
  LogLevel level() const { return level_.load(std::memory_order_relaxed); }

 private:
  const int fd_;
  std::atomic<LogLevel> level_;
};

}  // namespace gabion::service
