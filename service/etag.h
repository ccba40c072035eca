// Etags of resources (AIP-154).
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "google/protobuf/message.h"

namespace gabion::service {

// The resource's etag, in double quotes: a hash of its type and of those of these fields that it
// has: uid, generation, state, delete_time. The generation counts every change that a caller makes,
// so they say all that a caller has asked for and whether it has come true. What is only observed
// (connections, allocated bytes, effective sizes, why a state is so) changes no etag. The same in
// every process. Any thread.
std::string EtagOf(const google::protobuf::Message& resource);

// OK if `given` is empty or the etag of `resource` as it is; else ABORTED ETAG_MISMATCH, with the
// current one in the metadata.
absl::Status CheckEtag(std::string_view given, const google::protobuf::Message& resource);

}  // namespace gabion::service
