// The rules of whole messages. Used by validate and update only.
#pragma once

#include <string>
#include <vector>

#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "service/violations.h"

namespace gabion::service {

// True for a field with messages of our own: Timestamp, Any and the like have no rules of ours.
bool IsOurs(const google::protobuf::FieldDescriptor& field);

// The field of a request that holds the resource to write; null if there is none.
const google::protobuf::FieldDescriptor* ResourceField(const google::protobuf::Descriptor& request);

std::string JoinPath(const std::string& path, const std::string& name);

void AddRequired(const std::string& path, std::vector<Violation>* violations);

// Checks everything in `message`, at any depth. `path`: of the message; empty for a request.
void CheckMessage(const google::protobuf::Message& message, const std::string& path,
                  std::vector<Violation>* violations);

}  // namespace gabion::service
