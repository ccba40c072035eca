#include "service/message_rules.h"

#include "gabion/v1/options.pb.h"
#include "google/api/resource.pb.h"
#include "service/field_rules.h"

namespace gabion::service {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::OneofDescriptor;
using google::protobuf::Reflection;
using Violations = std::vector<Violation>;

// Calls visit(message, path) for each of our own messages in `field`.
template <typename Visit>
void ForEachChild(const Message& message, const FieldDescriptor& field, const std::string& path,
                  Visit visit) {
  const Reflection& r = *message.GetReflection();
  if (!field.is_repeated()) {
    if (r.HasField(message, &field)) visit(r.GetMessage(message, &field), path);
    return;
  }
  for (int i = 0; i < r.FieldSize(message, &field); ++i) {
    visit(r.GetRepeatedMessage(message, &field, i), path + "[" + std::to_string(i) + "]");
  }
}

void CheckOneofs(const Message& message, const std::string& path, Violations* violations) {
  const Descriptor& type = *message.GetDescriptor();
  for (int i = 0; i < type.real_oneof_decl_count(); ++i) {
    const OneofDescriptor* oneof = type.oneof_decl(i);
    const v1::OneofRules& rules = oneof->options().GetExtension(v1::oneof_rules);
    if (!rules.required() || message.GetReflection()->HasOneof(message, oneof)) continue;
    AddRequired(JoinPath(path, oneof->name()), violations);
    if (!rules.reason().empty()) violations->back().reason = rules.reason();
  }
}

}  // namespace

bool IsOurs(const FieldDescriptor& field) {
  return field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE && !field.is_map() &&
         field.message_type()->file()->package() == "gabion.v1";
}

const FieldDescriptor* ResourceField(const Descriptor& request) {
  for (int i = 0; i < request.field_count(); ++i) {
    const FieldDescriptor* field = request.field(i);
    if (IsOurs(*field) && !field->is_repeated() &&
        field->message_type()->options().HasExtension(google::api::resource)) {
      return field;
    }
  }
  return nullptr;
}

std::string JoinPath(const std::string& path, const std::string& name) {
  return path.empty() ? name : path + "." + name;
}

void AddRequired(const std::string& path, Violations* violations) {
  violations->push_back({path, "must be set", "FIELD_REQUIRED", "", ""});
}

void CheckMessage(const Message& message, const std::string& path, Violations* violations) {
  const Descriptor& type = *message.GetDescriptor();
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor& field = *type.field(i);
    if (HasBehavior(field, google::api::OUTPUT_ONLY)) continue;
    const std::string field_path = JoinPath(path, field.name());
    if (!IsSet(message, field)) {
      if (HasBehavior(field, google::api::REQUIRED)) AddRequired(field_path, violations);
      continue;
    }
    CheckFieldRules(message, field, field_path, violations);
    if (!IsOurs(field)) continue;
    ForEachChild(message, field, field_path, [&](const Message& child, const std::string& at) {
      CheckMessage(child, at, violations);
    });
  }
  CheckOneofs(message, path, violations);
}

}  // namespace gabion::service
