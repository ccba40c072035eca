// Payloads of the options that carry data. Total decoders: any bytes give a value or an error that
// names the fault. Pure functions: any thread.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/base/units.h"

namespace gabion::nbd {

// NBD_OPT_INFO and NBD_OPT_GO. Of the information requests only those are kept that change the
// answer.
struct InfoRequest {
  std::string export_name;
  bool wants_name = false;
  bool wants_description = false;
  bool wants_block_size = false;
};

// INVALID_ARGUMENT if the payload is malformed.
absl::StatusOr<InfoRequest> DecodeInfoRequest(Bytes payload);

// NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT.
struct MetaContextRequest {
  std::string export_name;
  std::vector<std::string> queries;
};

// INVALID_ARGUMENT if the payload is malformed, RESOURCE_EXHAUSTED if it has more than
// `max_queries` queries.
absl::StatusOr<MetaContextRequest> DecodeMetaContextRequest(Bytes payload, size_t max_queries);

}  // namespace gabion::nbd
