// ApplyUpdate(): update masks.
#include <memory>
#include <string>
#include <vector>

#include "engine/base/check.h"
#include "gabion/v1/options.pb.h"
#include "google/protobuf/field_mask.pb.h"
#include "google/protobuf/util/message_differencer.h"
#include "service/field_rules.h"
#include "service/message_rules.h"
#include "service/text.h"
#include "service/validate.h"

namespace gabion::service {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::FieldMask;
using google::protobuf::Message;
using google::protobuf::OneofDescriptor;
using google::protobuf::Reflection;
using google::protobuf::util::MessageDifferencer;
using Violations = std::vector<Violation>;

// A message with nothing but one field of `message`.
std::unique_ptr<Message> Isolate(const Message& message, const FieldDescriptor& field) {
  std::unique_ptr<Message> alone(message.New());
  alone->CopyFrom(message);
  std::vector<const FieldDescriptor*> set;
  alone->GetReflection()->ListFields(*alone, &set);
  for (const FieldDescriptor* other : set) {
    if (other != &field) alone->GetReflection()->ClearField(alone.get(), other);
  }
  return alone;
}

void CopyField(const Message& from, const FieldDescriptor& field, Message* to) {
  to->GetReflection()->ClearField(to, &field);
  to->MergeFrom(*Isolate(from, field));
}

// An etag says which state the caller has seen; it is compared, not written.
bool IsFixed(const FieldDescriptor& field) {
  return HasBehavior(field, google::api::OUTPUT_ONLY) ||
         HasBehavior(field, google::api::IDENTIFIER) || field.name() == "etag";
}

bool IsSingleMessage(const FieldDescriptor& field) { return IsOurs(field) && !field.is_repeated(); }

bool IsImmutable(const FieldDescriptor& field) {
  const OneofDescriptor* oneof = field.real_containing_oneof();
  return HasBehavior(field, google::api::IMMUTABLE) ||
         (oneof != nullptr && oneof->options().GetExtension(v1::oneof_rules).immutable());
}

// Mask left out: what is set in `from` wins.
void MergeSetFields(const Message& from, Message* to) {
  const Descriptor& type = *from.GetDescriptor();
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor& field = *type.field(i);
    if (IsFixed(field) || !IsSet(from, field)) continue;
    if (IsSingleMessage(field)) {
      MergeSetFields(from.GetReflection()->GetMessage(from, &field),
                     to->GetReflection()->MutableMessage(to, &field));
    } else {
      CopyField(from, field, to);
    }
  }
}

// Mask `*`: all that is not fixed becomes what it is in `from`.
void ReplaceFields(const Message& from, Message* to) {
  const Descriptor& type = *from.GetDescriptor();
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor& field = *type.field(i);
    if (IsFixed(field)) continue;
    if (!IsSet(from, field)) {
      if (!IsImmutable(field)) to->GetReflection()->ClearField(to, &field);
    } else if (IsSingleMessage(field)) {
      ReplaceFields(from.GetReflection()->GetMessage(from, &field),
                    to->GetReflection()->MutableMessage(to, &field));
    } else {
      CopyField(from, field, to);
    }
  }
}

// Makes the field at `path` what it is in `from`. False if there is no such path.
bool ReplacePath(const Message& from, std::string_view path, Message* to) {
  const size_t dot = path.find('.');
  const FieldDescriptor* field =
      from.GetDescriptor()->FindFieldByName(std::string(path.substr(0, dot)));
  if (field == nullptr) return false;
  if (dot == std::string_view::npos) {
    if (!IsFixed(*field)) CopyField(from, *field, to);
    return true;
  }
  if (field->is_repeated() || field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) return false;
  // Even below an OUTPUT_ONLY field the path must exist, but nothing is written there.
  const bool fixed = IsFixed(*field);
  std::unique_ptr<Message> ignored(fixed ? to->New() : nullptr);
  Message* parent = fixed ? ignored.get() : to;
  const bool had = parent->GetReflection()->HasField(*parent, field);
  const Message& child = from.GetReflection()->GetMessage(from, field);
  Message* target = parent->GetReflection()->MutableMessage(parent, field);
  const bool known = ReplacePath(child, path.substr(dot + 1), target);
  // Naming a field that is unset on both sides does not bring its message into being.
  if (!had && !from.GetReflection()->HasField(from, field)) {
    parent->GetReflection()->ClearField(parent, field);
  }
  return known;
}

void ApplyMask(const FieldMask& mask, const Message& from, Message* to, Violations* violations) {
  if (mask.paths().empty()) return MergeSetFields(from, to);
  if (mask.paths_size() == 1 && mask.paths(0) == "*") return ReplaceFields(from, to);
  for (const std::string& path : mask.paths()) {
    if (ReplacePath(from, path, to)) continue;
    violations->push_back({"update_mask",
                           "names \"" + Printable(path, 100) + "\", which is no field of " +
                               from.GetDescriptor()->name(),
                           "FIELD_MASK_INVALID", "", ""});
  }
}

void AddImmutable(const std::string& path, Violations* violations) {
  violations->push_back(
      {path, "cannot change once the resource exists", "FIELD_IMMUTABLE", "", ""});
}

// Reports IMMUTABLE fields and oneofs that differ between the two.
void CompareImmutable(const Message& before, const Message& after, const std::string& path,
                      Violations* violations) {
  const Descriptor& type = *before.GetDescriptor();
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor& field = *type.field(i);
    const std::string field_path = JoinPath(path, field.name());
    if (HasBehavior(field, google::api::IMMUTABLE)) {
      if (!MessageDifferencer::Equals(*Isolate(before, field), *Isolate(after, field))) {
        AddImmutable(field_path, violations);
      }
    } else if (IsSingleMessage(field) && IsSet(before, field) && IsSet(after, field)) {
      CompareImmutable(before.GetReflection()->GetMessage(before, &field),
                       after.GetReflection()->GetMessage(after, &field), field_path, violations);
    }
  }
  for (int i = 0; i < type.real_oneof_decl_count(); ++i) {
    const OneofDescriptor* oneof = type.oneof_decl(i);
    if (!oneof->options().GetExtension(v1::oneof_rules).immutable()) continue;
    if (before.GetReflection()->GetOneofFieldDescriptor(before, oneof) !=
        after.GetReflection()->GetOneofFieldDescriptor(after, oneof)) {
      AddImmutable(JoinPath(path, oneof->name()), violations);
    }
  }
}

FieldMask MaskOf(const Message& request) {
  const FieldDescriptor* field = request.GetDescriptor()->FindFieldByName("update_mask");
  CHECK(field != nullptr);
  FieldMask mask;
  mask.CopyFrom(request.GetReflection()->GetMessage(request, field));
  return mask;
}

}  // namespace

absl::StatusOr<bool> ApplyUpdate(const Message& request, Message* stored) {
  const FieldDescriptor* field = ResourceField(*request.GetDescriptor());
  CHECK(field != nullptr);
  CHECK(field->message_type() == stored->GetDescriptor());
  const Message& patch = request.GetReflection()->GetMessage(request, field);
  std::unique_ptr<Message> merged(stored->New());
  merged->CopyFrom(*stored);
  Violations violations;
  ApplyMask(MaskOf(request), patch, merged.get(), &violations);
  CompareImmutable(*stored, *merged, field->name(), &violations);
  CheckMessage(*merged, field->name(), &violations);
  absl::Status status = ToStatus(violations);
  if (!status.ok()) return status;
  if (MessageDifferencer::Equals(*stored, *merged)) return false;
  stored->CopyFrom(*merged);
  return true;
}

}  // namespace gabion::service
