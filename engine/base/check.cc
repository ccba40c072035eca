#include "engine/base/check.h"

#include <cstdio>
#include <cstdlib>

namespace gabion::internal {

void CheckFailed(const char* file, int line, const char* condition, const std::string& detail) {
  std::fprintf(stderr, "%s:%d: CHECK failed: %s%s%s%s\n", file, line, condition,
               detail.empty() ? "" : " (", detail.c_str(), detail.empty() ? "" : ")");
  std::fflush(stderr);
  std::abort();
}

}  // namespace gabion::internal
