// The rules of single fields: (gabion.v1.rules) and resource references. Used by validate only.
#pragma once

#include <string>
#include <vector>

#include "google/api/field_behavior.pb.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "service/violations.h"

namespace gabion::service {

bool HasBehavior(const google::protobuf::FieldDescriptor& field,
                 google::api::FieldBehavior behavior);

// True if the field is set: present, or, where presence is not tracked, not at its default value.
bool IsSet(const google::protobuf::Message& message,
           const google::protobuf::FieldDescriptor& field);

// Checks the value of a field that is set. `path`: of the field. Does not descend into messages.
void CheckFieldRules(const google::protobuf::Message& message,
                     const google::protobuf::FieldDescriptor& field, const std::string& path,
                     std::vector<Violation>* violations);

}  // namespace gabion::service
