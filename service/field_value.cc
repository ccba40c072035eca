#include "service/field_value.h"

#include <cmath>

#include "engine/base/check.h"
#include "google/protobuf/descriptor.pb.h"

namespace gabion::service {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

const Message& MessageAt(const Message& message, const FieldDescriptor& field, int index) {
  const Reflection& reflection = *message.GetReflection();
  return index == kSingular ? reflection.GetMessage(message, &field)
                            : reflection.GetRepeatedMessage(message, &field, index);
}

absl::int128 ReadNanoseconds(const Message& time) {
  const Reflection& reflection = *time.GetReflection();
  const FieldDescriptor* seconds = time.GetDescriptor()->FindFieldByNumber(1);
  const FieldDescriptor* nanos = time.GetDescriptor()->FindFieldByNumber(2);
  CHECK(seconds != nullptr && nanos != nullptr);
  return Nanoseconds(reflection.GetInt64(time, seconds), reflection.GetInt32(time, nanos));
}

std::string ReadText(const Message& message, const FieldDescriptor& field, int index) {
  const Reflection& reflection = *message.GetReflection();
  return index == kSingular ? reflection.GetString(message, &field)
                            : reflection.GetRepeatedString(message, &field, index);
}

int Sign(bool less, bool greater) { return less ? -1 : static_cast<int>(greater); }

}  // namespace

ValueKind KindOf(const FieldDescriptor& field) {
  if (field.type() == FieldDescriptor::TYPE_BYTES) return ValueKind::kBytes;
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_BOOL:
      return ValueKind::kBool;
    case FieldDescriptor::CPPTYPE_ENUM:
      return ValueKind::kEnum;
    case FieldDescriptor::CPPTYPE_FLOAT:
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return ValueKind::kReal;
    case FieldDescriptor::CPPTYPE_STRING:
      return ValueKind::kText;
    case FieldDescriptor::CPPTYPE_MESSAGE:
      break;
    default:
      return ValueKind::kInteger;
  }
  const std::string& type = field.message_type()->full_name();
  if (type == "google.protobuf.Timestamp") return ValueKind::kTimestamp;
  if (type == "google.protobuf.Duration") return ValueKind::kDuration;
  if (type == "google.protobuf.Any") return ValueKind::kAny;
  return ValueKind::kMessage;
}

bool HasOrder(ValueKind kind) {
  return kind != ValueKind::kAny && kind != ValueKind::kMessage && kind != ValueKind::kBytes;
}

std::string_view NameOf(ValueKind kind) {
  switch (kind) {
    case ValueKind::kInteger:
      return "an integer";
    case ValueKind::kBool:
      return "a bool";
    case ValueKind::kEnum:
      return "an enum";
    case ValueKind::kReal:
      return "a number";
    case ValueKind::kText:
      return "a string";
    case ValueKind::kTimestamp:
      return "a timestamp";
    case ValueKind::kDuration:
      return "a duration";
    case ValueKind::kAny:
    case ValueKind::kMessage:
      return "a message";
    case ValueKind::kBytes:
      return "bytes";
  }
  return "unknown";
}

FieldValue ReadValue(const Message& message, const FieldDescriptor& field, int index) {
  const Reflection& reflection = *message.GetReflection();
  const bool one = index == kSingular;
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return absl::int128(one ? reflection.GetInt32(message, &field)
                              : reflection.GetRepeatedInt32(message, &field, index));
    case FieldDescriptor::CPPTYPE_INT64:
      return absl::int128(one ? reflection.GetInt64(message, &field)
                              : reflection.GetRepeatedInt64(message, &field, index));
    case FieldDescriptor::CPPTYPE_UINT32:
      return absl::int128(one ? reflection.GetUInt32(message, &field)
                              : reflection.GetRepeatedUInt32(message, &field, index));
    case FieldDescriptor::CPPTYPE_UINT64:
      return absl::int128(one ? reflection.GetUInt64(message, &field)
                              : reflection.GetRepeatedUInt64(message, &field, index));
    case FieldDescriptor::CPPTYPE_BOOL:
      return absl::int128(one ? reflection.GetBool(message, &field)
                              : reflection.GetRepeatedBool(message, &field, index));
    case FieldDescriptor::CPPTYPE_ENUM:
      return absl::int128(one ? reflection.GetEnumValue(message, &field)
                              : reflection.GetRepeatedEnumValue(message, &field, index));
    case FieldDescriptor::CPPTYPE_FLOAT:
      return static_cast<double>(one ? reflection.GetFloat(message, &field)
                                     : reflection.GetRepeatedFloat(message, &field, index));
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return one ? reflection.GetDouble(message, &field)
                 : reflection.GetRepeatedDouble(message, &field, index);
    case FieldDescriptor::CPPTYPE_STRING:
      return ReadText(message, field, index);
    case FieldDescriptor::CPPTYPE_MESSAGE:
      break;
  }
  CHECK(HasOrder(KindOf(field)));
  return ReadNanoseconds(MessageAt(message, field, index));
}

int CompareValues(const FieldValue& a, const FieldValue& b) {
  CHECK_EQ(a.index(), b.index());
  if (const auto* integer = std::get_if<absl::int128>(&a)) {
    const absl::int128 other = std::get<absl::int128>(b);
    return Sign(*integer<other, *integer> other);
  }
  if (const auto* real = std::get_if<double>(&a)) {
    const double other = std::get<double>(b);
    if (std::isnan(*real) || std::isnan(other)) {
      return Sign(!std::isnan(other), !std::isnan(*real));
    }
    return Sign(*real<other, *real> other);
  }
  return std::get<std::string>(a).compare(std::get<std::string>(b));
}

bool HasValue(const Message& message, const FieldDescriptor& field) {
  if (field.containing_type()->options().map_entry()) return true;
  return message.GetReflection()->HasField(message, &field);
}

absl::int128 Nanoseconds(int64_t seconds, int32_t nanos) {
  return absl::int128(seconds) * 1'000'000'000 + nanos;
}

}  // namespace gabion::service
