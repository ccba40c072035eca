#include "engine/base/log.h"

namespace gabion {
namespace {

class Null final : public Logger {
 public:
  void Log(LogLevel, std::string_view, std::string_view) override {}
};

}  // namespace

Logger& NullLogger() {
  static Null null;
  return null;
}

}  // namespace gabion
