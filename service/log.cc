#include "service/log.h"

#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <string>

#include "service/text.h"

namespace gabion::service {
namespace {

std::string_view NameOf(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "debug";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarning:
      return "warning";
    case LogLevel::kError:
      return "error";
  }
  return "error";
}

// RFC 3339, UTC, microseconds.
std::string Now() {
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  tm utc;
  gmtime_r(&now.tv_sec, &utc);
  char text[64];
  const size_t size = strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &utc);
  std::snprintf(text + size, sizeof(text) - size, ".%06ldZ", now.tv_nsec / 1000);
  return text;
}

}  // namespace

void JsonLogger::Log(LogLevel level, std::string_view component, std::string_view message,
                     std::initializer_list<Field> fields) {
  if (level < this->level()) return;
  std::string line = "{\"ts\":\"" + Now() + "\",\"level\":\"" + std::string(NameOf(level)) +
                     "\",\"component\":" + JsonQuote(component) + ",\"msg\":" + JsonQuote(message);
  for (const auto& [key, value] : fields) line += ',' + JsonQuote(key) + ':' + JsonQuote(value);
  line += "}\n";
  std::string_view rest = line;
  while (!rest.empty()) {
    const ssize_t written = write(fd_, rest.data(), rest.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return;  // nowhere left to complain
    rest.remove_prefix(static_cast<size_t>(written));
  }
}

}  // namespace gabion::service
