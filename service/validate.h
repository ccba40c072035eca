// Checks requests against what their descriptors declare: google.api.field_behavior (REQUIRED,
// IMMUTABLE, OUTPUT_ONLY, IDENTIFIER), (gabion.v1.rules), (gabion.v1.oneof_rules) and resource
// references. One walker for all methods: a rule is written in the proto, never in a handler.
//
// Errors list every violation of the request in one BadRequest; ErrorInfo tells the first one, with
// the metadata field, value and allowed. The code is that of the first one's reason. Pure
// functions; any thread.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "google/protobuf/message.h"

namespace gabion::service {

// Makes a request ready for its handler, and checks it.
// - What callers may not set is cleared: OUTPUT_ONLY fields everywhere, and the name of a resource
//   in a request that creates it (the {resource}_id says it).
// - In a request with an `update_mask`, only the resource's name is checked here; ApplyUpdate()
//   checks the rest, because only there is the whole resource known.
absl::Status PrepareRequest(google::protobuf::Message* request);

// Checks a whole resource; `path` is where it stands in the request, e.g. "image".
absl::Status ValidateResource(const google::protobuf::Message& resource, std::string_view path);

// Applies an update request (one field with a resource, and `update_mask`) to the stored resource:
// - mask left out: every field that is set in the request, descending into messages;
// - `*`: every field; those not set in the request are cleared, but for IMMUTABLE ones;
// - else the fields named, whole: lists, maps and messages are replaced, not merged.
// OUTPUT_ONLY fields and the name never change. The result is checked as a whole, and against
// *stored for IMMUTABLE. Returns whether anything changed; on error *stored is as it was.
// REQUIRES: *stored has the type of the request's resource.
absl::StatusOr<bool> ApplyUpdate(const google::protobuf::Message& request,
                                 google::protobuf::Message* stored);

// Clears every OUTPUT_ONLY field, at any depth.
void ClearOutputOnly(google::protobuf::Message* message);

}  // namespace gabion::service
