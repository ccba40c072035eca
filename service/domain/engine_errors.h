// Errors of the engine as errors of the API: the one place where they are translated.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace gabion::service {

// What a call to the engine was about, so that the error can name it. Empty: not concerned.
struct EngineCall {
  std::string image;        // images/{image}
  std::string export_name;  // exports/{export}
  std::string pool;         // pools/{pool}
  // Where the request says what may be at fault.
  std::string size_field;    // e.g. "image.virtual_size_bytes"
  std::string file_field;    // e.g. "source_file"
  std::string offset_field;  // e.g. "offset"
  // What the entries of the filter stack are, by index: "export.filter_stack[0].spec", or where a
  // named filter is named.
  std::vector<std::string> filter_fields;
};

// `status` with the reason of the API in place of the engine's and the details that belong to it.
// OK and errors that carry ErrorInfo already pass unchanged.
absl::Status FromEngine(const absl::Status& status, const EngineCall& call);

}  // namespace gabion::service
