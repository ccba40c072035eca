// What is done about bytes that are not as they should be.
#pragma once

#include <cstdint>

namespace gabion::filters {

struct VerifyOptions {
  enum class OnMismatch : uint8_t {
    kFail,    // the read fails
    kReport,  // the log says so, at most every 10 seconds, and the read gives the child's bytes
  };
  OnMismatch on_mismatch = OnMismatch::kFail;
  friend bool operator==(const VerifyOptions&, const VerifyOptions&) = default;
};

}  // namespace gabion::filters
