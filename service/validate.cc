#include "service/validate.h"

#include <vector>

#include "google/api/resource.pb.h"
#include "service/field_rules.h"
#include "service/message_rules.h"
#include "service/names.h"
#include "service/text.h"

namespace gabion::service {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;
using Violations = std::vector<Violation>;

const FieldDescriptor* MaskField(const Descriptor& request) {
  return request.FindFieldByName("update_mask");
}

// Checks that the resource of an update request is there and has a name.
void CheckName(const Message& request, const FieldDescriptor& field, Violations* violations) {
  if (!IsSet(request, field)) return AddRequired(field.name(), violations);
  const Message& resource = request.GetReflection()->GetMessage(request, &field);
  const auto& type = resource.GetDescriptor()->options().GetExtension(google::api::resource);
  const FieldDescriptor* name_field = resource.GetDescriptor()->FindFieldByName("name");
  const std::string name = resource.GetReflection()->GetString(resource, name_field);
  const std::string path = field.name() + ".name";
  if (name.empty()) return AddRequired(path, violations);
  if (IsNameOf(type.type(), name)) return;
  const std::string shown = Printable(name, 100);
  const std::string allowed(PatternOf(type.type()));
  violations->push_back({path, "must have the form " + allowed + ", is \"" + shown + "\"",
                         "NAME_INVALID", shown, allowed});
}

absl::Status CheckUpdateRequest(const Message& request, const FieldDescriptor& resource) {
  Violations violations;
  CheckName(request, resource, &violations);
  const Descriptor& type = *request.GetDescriptor();
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor& field = *type.field(i);
    if (&field == &resource) continue;
    if (!IsSet(request, field)) {
      if (HasBehavior(field, google::api::REQUIRED)) AddRequired(field.name(), &violations);
    } else {
      CheckFieldRules(request, field, field.name(), &violations);
    }
  }
  return ToStatus(violations);
}

}  // namespace

absl::Status PrepareRequest(Message* request) {
  ClearOutputOnly(request);
  const FieldDescriptor* resource = ResourceField(*request->GetDescriptor());
  if (resource != nullptr && MaskField(*request->GetDescriptor()) != nullptr) {
    return CheckUpdateRequest(*request, *resource);
  }
  if (resource != nullptr && IsSet(*request, *resource)) {
    Message* created = request->GetReflection()->MutableMessage(request, resource);
    const FieldDescriptor* name = created->GetDescriptor()->FindFieldByName("name");
    created->GetReflection()->ClearField(created, name);
  }
  Violations violations;
  CheckMessage(*request, "", &violations);
  return ToStatus(violations);
}

absl::Status ValidateResource(const Message& resource, std::string_view path) {
  Violations violations;
  CheckMessage(resource, std::string(path), &violations);
  return ToStatus(violations);
}

void ClearOutputOnly(Message* message) {
  const Descriptor& type = *message->GetDescriptor();
  const Reflection& r = *message->GetReflection();
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor* field = type.field(i);
    if (HasBehavior(*field, google::api::OUTPUT_ONLY)) {
      r.ClearField(message, field);
    } else if (IsOurs(*field) && field->is_repeated()) {
      for (int k = 0; k < r.FieldSize(*message, field); ++k) {
        ClearOutputOnly(r.MutableRepeatedMessage(message, field, k));
      }
    } else if (IsOurs(*field) && r.HasField(*message, field)) {
      ClearOutputOnly(r.MutableMessage(message, field));
    }
  }
}

}  // namespace gabion::service
