// Values of single fields in a form that can be compared, for filters and orders of lists. Pure
// functions; any thread.
#pragma once

#include <string>
#include <string_view>
#include <variant>

#include "absl/numeric/int128.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"

namespace gabion::service {

// What the values of a field are, whether the field is repeated or not.
enum class ValueKind {
  kInteger,
  kBool,  // 0 and 1
  kEnum,  // by number
  kReal,
  kText,
  kTimestamp,  // nanoseconds since 1970
  kDuration,   // nanoseconds
  kAny,        // google.protobuf.Any
  kMessage,    // any other message
  kBytes,
};

ValueKind KindOf(const google::protobuf::FieldDescriptor& field);

// True for what CompareValues() is for: all but kAny, kMessage and kBytes.
bool HasOrder(ValueKind kind);

// "an integer", "a timestamp", ...
std::string_view NameOf(ValueKind kind);

// Integers, bools, enums, timestamps and durations; numbers with a fraction; text.
using FieldValue = std::variant<absl::int128, double, std::string>;

inline constexpr int kSingular = -1;

// The value of the field, or of its element `index` if it is repeated. REQUIRES: HasOrder().
FieldValue ReadValue(const google::protobuf::Message& message,
                     const google::protobuf::FieldDescriptor& field, int index = kSingular);

// Negative, zero or positive. A total order: text by bytes, NaN before all other numbers. REQUIRES:
// both are values of one field.
int CompareValues(const FieldValue& a, const FieldValue& b);

// True if a field that is not repeated has a value of its own: it is present, or, where presence is
// not tracked, not at its default value. The value of a map's entry always is.
bool HasValue(const google::protobuf::Message& message,
              const google::protobuf::FieldDescriptor& field);

// Seconds and nanoseconds of a Timestamp or Duration as one number.
absl::int128 Nanoseconds(int64_t seconds, int32_t nanos);

}  // namespace gabion::service
