// What a method of the API is, read off its descriptor: what every method does around its work
// follows from this and not from code of its own.
#pragma once

#include <string>
#include <string_view>

#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"

namespace gabion::service {

// One method. Lives as long as the program; any thread.
struct Method {
  const google::protobuf::MethodDescriptor* descriptor = nullptr;
  std::string name;      // in messages and in the log of requests: "ImageService.CreateImage"
  bool changes = false;  // it changes something: refused while draining
  // Of the request; null where there is none.
  const google::protobuf::FieldDescriptor* request_id = nullptr;
  const google::protobuf::FieldDescriptor* validate_only = nullptr;
  const google::protobuf::FieldDescriptor* read_mask = nullptr;
};

// The method of that full name, "gabion.v1.ImageService.CreateImage". REQUIRES: it is linked.
const Method& MethodNamed(std::string_view full_name);

// Reads `descriptor`.
Method DescribeMethod(const google::protobuf::MethodDescriptor& descriptor);

// The list field of a List response: its resources. Null if `response` is not one.
const google::protobuf::FieldDescriptor* ResourcesField(
    const google::protobuf::Descriptor& response);

// SHA-256 of `request` without its request_id. Requests that are equal have the same.
std::string FingerprintOf(const Method& method, const google::protobuf::Message& request);

}  // namespace gabion::service
