// qemu-img and qemu-io as judges of what Gabion makes of the format.
#pragma once

#include <cstdint>
#include <string>

#include "engine/formats/qcow2/create.h"

namespace gabion::qcow2::testing {

// Empty if qemu-img and qemu-io are in PATH; otherwise which is missing. A test that needs them:
//   if (const std::string missing = MissingQemuTool(); !missing.empty()) GTEST_SKIP() << missing;
std::string MissingQemuTool();

struct CommandResult {
  int exit_status = -1;  // 0: success
  std::string output;    // both of its outputs
};

CommandResult RunCommand(const std::string& command);

// The part of `text` that follows `key`, up to the end of the number: "required size: 123" -> 123.
uint64_t NumberAfter(const std::string& text, const std::string& key);

// The options of `qemu-img create` and `measure` that make what `options` describes, without size
// and backing file: "cluster_size=65536,...".
std::string QemuOptions(const CreateOptions& options);

}  // namespace gabion::qcow2::testing
