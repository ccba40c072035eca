#include "tests/engine/formats/qcow2/qemu_tools.h"

#include <sys/wait.h>

#include <cstdio>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"

namespace gabion::qcow2::testing {

std::string MissingQemuTool() {
  for (const char* tool : {"qemu-img", "qemu-io"}) {
    if (RunCommand(absl::StrCat("command -v ", tool)).exit_status != 0) {
      return absl::StrCat(tool, " is not installed");
    }
  }
  return {};
}

CommandResult RunCommand(const std::string& command) {
  FILE* pipe = popen(absl::StrCat("(", command, ") 2>&1 </dev/null").c_str(), "r");
  CHECK(pipe != nullptr);
  CommandResult result;
  char buffer[4096];
  std::size_t got;
  while ((got = fread(buffer, 1, sizeof(buffer), pipe)) > 0) result.output.append(buffer, got);
  const int status = pclose(pipe);
  result.exit_status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return result;
}

uint64_t NumberAfter(const std::string& text, const std::string& key) {
  const std::size_t at = text.find(key);
  if (at == std::string::npos) return ~uint64_t{0};
  return std::strtoull(text.c_str() + at + key.size(), nullptr, 10);
}

std::string QemuOptions(const CreateOptions& options) {
  return absl::StrCat("cluster_size=", uint64_t{1} << options.cluster_bits,
                      ",compat=", options.version == 2 ? "0.10" : "1.1",
                      ",refcount_bits=", 1u << options.refcount_order,
                      ",extended_l2=", options.extended_l2 ? "on" : "off",
                      ",lazy_refcounts=", options.lazy_refcounts ? "on" : "off",
                      ",preallocation=", options.preallocate_metadata ? "metadata" : "off",
                      options.compression == Compression::kZstd ? ",compression_type=zstd" : "");
}

}  // namespace gabion::qcow2::testing
