// How two resources differ in what callers set.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "google/protobuf/message.h"

namespace gabion::service {

// The top-level fields in which `a` and `b`, of one type, differ; names and what is OUTPUT_ONLY do
// not count. Sorted.
std::vector<std::string> DifferingFields(const google::protobuf::Message& a,
                                         const google::protobuf::Message& b);

// What a Create answers when `stored` has the name already: RESOURCE_EXISTS, or
// RESOURCE_EXISTS_DIFFERENT if it is not what was asked for.
absl::Status ExistsAlready(const google::protobuf::Message& asked,
                           const google::protobuf::Message& stored, std::string_view type,
                           std::string_view name);

}  // namespace gabion::service
