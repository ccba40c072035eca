#include "service/field_rules.h"

#include <algorithm>
#include <bit>
#include <cctype>
#include <cstdlib>
#include <limits>
#include <optional>
#include <sstream>
#include <string_view>

#include "absl/numeric/int128.h"
#include "gabion/v1/options.pb.h"
#include "google/api/resource.pb.h"
#include "google/protobuf/duration.pb.h"
#include "service/names.h"
#include "service/text.h"

namespace gabion::service {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;
using v1::Rules;

constexpr int kWhole = -1;  // element index of a field that is no list
constexpr size_t kShownBytes = 100;
constexpr int kMaxLabels = 64;
constexpr size_t kMaxLabelKeyBytes = 128;
constexpr size_t kMaxLabelValueBytes = 256;

std::string Text(absl::int128 value) {
  std::ostringstream out;
  out << value;
  return out.str();
}

// The value of an integer field, of element `index` if it is a list; nothing for other types.
std::optional<absl::int128> Number(const Message& message, const FieldDescriptor& field,
                                   int index) {
  const Reflection& r = *message.GetReflection();
  const bool list = index != kWhole;
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return list ? r.GetRepeatedInt32(message, &field, index) : r.GetInt32(message, &field);
    case FieldDescriptor::CPPTYPE_INT64:
      return list ? r.GetRepeatedInt64(message, &field, index) : r.GetInt64(message, &field);
    case FieldDescriptor::CPPTYPE_UINT32:
      return list ? r.GetRepeatedUInt32(message, &field, index) : r.GetUInt32(message, &field);
    case FieldDescriptor::CPPTYPE_UINT64:
      return list ? r.GetRepeatedUInt64(message, &field, index) : r.GetUInt64(message, &field);
    default:
      return std::nullopt;
  }
}

// Says what is wrong with one field in the words of its rules.
class Checker {
 public:
  Checker(const Message& message, const FieldDescriptor& field, std::string path,
          std::vector<Violation>* violations)
      : message_(message),
        field_(field),
        rules_(field.options().GetExtension(v1::rules)),
        path_(std::move(path)),
        violations_(violations) {}

  void CheckNumber(absl::int128 value) {
    if (rules_.has_exempt_value() && value == rules_.exempt_value()) return;
    const bool below = rules_.has_min() && value < rules_.min();
    const bool above = rules_.has_max() && value > rules_.max();
    const std::string shown = Text(value);
    if (below || above) Add("_OUT_OF_RANGE", "must be " + Allowed(), shown, Allowed());
    if (rules_.power_of_two() && (value <= 0 || (value & (value - 1)) != 0)) {
      Add("_NOT_POWER_OF_TWO", "must be a power of two", shown, Allowed());
    }
    CheckOrder(value, shown);
  }

  void CheckText(const std::string& value) {
    if (value.size() < rules_.min_bytes()) {
      Add("_TOO_SHORT", "must have at least " + std::to_string(rules_.min_bytes()) + " bytes");
    }
    if (rules_.max_bytes() > 0 && value.size() > rules_.max_bytes()) {
      Add("_TOO_LONG", "must have at most " + std::to_string(rules_.max_bytes()) + " bytes, has " +
                           std::to_string(value.size()));
    }
    if (rules_.format() == Rules::FORMAT_RESOURCE_ID && !IsResourceId(value)) {
      AddNameInvalid(
          "must have lower-case letters, digits and hyphens, start with a letter, not end with a "
          "hyphen and have at most 63 characters",
          value, {});
    }
    if (rules_.format() == Rules::FORMAT_PRINTABLE && HasControl(value)) {
      Add("_INVALID", "must have no control characters");
    }
    if (rules_.format() == Rules::FORMAT_REQUEST_ID && !IsUuid4(value)) {
      Add("_INVALID", "must be a UUID of version 4, 36 characters with hyphens");
    }
    if (field_.options().HasExtension(google::api::resource_reference)) CheckReference(value);
  }

  void CheckDuration(const google::protobuf::Duration& value) {
    if (!rules_.has_min_seconds() && !rules_.has_max_seconds()) return;
    constexpr int64_t kNanos = 1'000'000'000;
    const absl::int128 nanos = absl::int128(value.seconds()) * kNanos + value.nanos();
    const bool below =
        rules_.has_min_seconds() && nanos < absl::int128(rules_.min_seconds()) * kNanos;
    const bool above =
        rules_.has_max_seconds() && nanos > absl::int128(rules_.max_seconds()) * kNanos;
    if (!below && !above && std::abs(value.nanos()) < kNanos) return;
    const std::string allowed = "from " + std::to_string(rules_.min_seconds()) + " s to " +
                                std::to_string(rules_.max_seconds()) + " s";
    Add("_OUT_OF_RANGE", "must be " + allowed, std::to_string(value.seconds()) + " s", allowed);
  }

  void CheckLabels() {
    const Reflection& r = *message_.GetReflection();
    const int count = r.FieldSize(message_, &field_);
    if (count > kMaxLabels) {
      Add("_TOO_LONG", "must have at most " + std::to_string(kMaxLabels) + " entries, has " +
                           std::to_string(count));
    }
    for (int i = 0; i < count; ++i) {
      const Message& entry = r.GetRepeatedMessage(message_, &field_, i);
      const Reflection& e = *entry.GetReflection();
      CheckLabel(e.GetString(entry, field_.message_type()->map_key()),
                 e.GetString(entry, field_.message_type()->map_value()));
    }
  }

  void CheckItems(int count) {
    if (rules_.max_items() > 0 && static_cast<uint32_t>(count) > rules_.max_items()) {
      Add("_TOO_LONG", "must have at most " + std::to_string(rules_.max_items()) +
                           " elements, has " + std::to_string(count));
    }
  }

  void CheckEnum(int value) {
    if (field_.enum_type()->FindValueByNumber(value) != nullptr) return;
    Add("_INVALID", "is not a value of " + field_.enum_type()->full_name(), std::to_string(value));
  }

 private:
  std::string Stem() const { return rules_.reason_stem().empty() ? "FIELD" : rules_.reason_stem(); }

  void Add(std::string_view ending, std::string description, std::string value = {},
           std::string allowed = {}) {
    if (!value.empty()) description += ", is " + value;
    violations_->push_back(
        {path_, std::move(description),
         rules_.reason().empty() ? Stem() + std::string(ending) : rules_.reason(), std::move(value),
         std::move(allowed)});
  }

  void AddNameInvalid(std::string description, std::string_view value, std::string allowed) {
    const std::string shown = Printable(value, kShownBytes);
    violations_->push_back(
        {path_, description + ", is \"" + shown + "\"", "NAME_INVALID", shown, std::move(allowed)});
  }

  // What the number may be, in words.
  std::string Allowed() const {
    std::string text = rules_.power_of_two() ? "a power of two " : "";
    if (rules_.has_min() && rules_.has_max()) {
      text += "from " + std::to_string(rules_.min()) + " to " + std::to_string(rules_.max());
    } else if (rules_.has_min()) {
      text += "at least " + std::to_string(rules_.min());
    } else if (rules_.has_max()) {
      text += "at most " + std::to_string(rules_.max());
    }
    if (rules_.has_exempt_value()) text += ", or " + std::to_string(rules_.exempt_value());
    return text;
  }

  // The value of a sibling that is set.
  std::optional<absl::int128> Sibling(const std::string& name) const {
    if (name.empty()) return std::nullopt;
    const FieldDescriptor* other = field_.containing_type()->FindFieldByName(name);
    if (other == nullptr || !IsSet(message_, *other)) return std::nullopt;
    return Number(message_, *other, kWhole);
  }

  void CheckOrder(absl::int128 value, const std::string& shown) {
    const auto least = Sibling(rules_.not_below_field());
    if (least.has_value() && value < *least) {
      const std::string allowed = "at least " + rules_.not_below_field() + ", " + Text(*least);
      Add("_ORDER", "must be " + allowed, shown, allowed);
    }
    const auto unit = Sibling(rules_.multiple_of_field());
    if (unit.has_value() && *unit > 0 && value % *unit != 0) {
      const std::string allowed =
          "a multiple of " + rules_.multiple_of_field() + ", " + Text(*unit);
      Add("_ORDER", "must be " + allowed, shown, allowed);
    }
  }

  // Parents may be `-`, for all of them [AIP-159].
  void CheckReference(const std::string& name) {
    const auto& reference = field_.options().GetExtension(google::api::resource_reference);
    std::vector<std::string> types(rules_.reference_types().begin(),
                                   rules_.reference_types().end());
    if (!reference.child_type().empty()) {
      types.emplace_back(ParentTypeOf(reference.child_type()));
    } else if (reference.type() != "*") {
      types.push_back(reference.type());
    }
    std::string allowed;
    const bool wildcard = !reference.child_type().empty() && IdOf(name) == "-";
    for (const std::string& type : types) {
      if (IsNameOf(type, name)) return;
      if (wildcard && MakeName(CollectionOf(type), "-") == name) return;
      if (!allowed.empty()) allowed += " or ";
      allowed += PatternOf(type);
    }
    AddNameInvalid("must have the form " + allowed, name, allowed);
  }

  static bool HasControl(std::string_view text) {
    return std::any_of(text.begin(), text.end(),
                       [](char c) { return static_cast<uint8_t>(c) < 0x20 || c == 0x7F; });
  }

  // xxxxxxxx-xxxx-4xxx-Vxxx-xxxxxxxxxxxx, V being 8, 9, a or b.
  static bool IsUuid4(std::string_view text) {
    if (text.size() != 36 || text[14] != '4') return false;
    if (std::string_view("89abAB").find(text[19]) == std::string_view::npos) return false;
    for (size_t i = 0; i < text.size(); ++i) {
      const bool hyphen = i == 8 || i == 13 || i == 18 || i == 23;
      const auto byte = static_cast<unsigned char>(text[i]);
      if (hyphen ? text[i] != '-' : std::isxdigit(byte) == 0) return false;
    }
    return true;
  }

  static bool IsLabelKey(std::string_view key) {
    const auto letter = [](char c) { return c >= 'a' && c <= 'z'; };
    return !key.empty() && letter(key[0]) && std::all_of(key.begin(), key.end(), [&](char c) {
      return letter(c) || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '/' || c == '-';
    });
  }

  void CheckLabel(const std::string& key, const std::string& value) {
    Checker entry(message_, field_, path_ + "[\"" + Printable(key, kShownBytes) + "\"]",
                  violations_);
    if (!IsLabelKey(key)) {
      entry.Add("_INVALID", "a key must have a-z, 0-9, . _ / - and start with a letter");
    }
    if (key.size() > kMaxLabelKeyBytes) {
      entry.Add("_TOO_LONG", "a key must have at most 128 characters");
    }
    if (value.size() > kMaxLabelValueBytes) {
      entry.Add("_TOO_LONG", "a value must have at most 256 bytes");
    }
    if (HasControl(value)) entry.Add("_INVALID", "a value must have no control characters");
  }

  const Message& message_;
  const FieldDescriptor& field_;
  const Rules& rules_;
  const std::string path_;
  std::vector<Violation>* const violations_;
};

void CheckElement(const Message& message, const FieldDescriptor& field, int index,
                  const std::string& path, std::vector<Violation>* violations) {
  Checker checker(message, field, path, violations);
  const Reflection& r = *message.GetReflection();
  const bool list = index != kWhole;
  if (const auto number = Number(message, field, index)) {
    checker.CheckNumber(*number);
  } else if (field.cpp_type() == FieldDescriptor::CPPTYPE_STRING) {
    std::string scratch;
    checker.CheckText(list ? r.GetRepeatedStringReference(message, &field, index, &scratch)
                           : r.GetStringReference(message, &field, &scratch));
  } else if (field.cpp_type() == FieldDescriptor::CPPTYPE_ENUM) {
    checker.CheckEnum(list ? r.GetRepeatedEnumValue(message, &field, index)
                           : r.GetEnumValue(message, &field));
  } else if (!list && field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE &&
             field.message_type() == google::protobuf::Duration::descriptor()) {
    google::protobuf::Duration duration;
    duration.CopyFrom(r.GetMessage(message, &field));
    checker.CheckDuration(duration);
  }
}

}  // namespace

bool HasBehavior(const FieldDescriptor& field, google::api::FieldBehavior behavior) {
  const auto& options = field.options();
  for (int i = 0; i < options.ExtensionSize(google::api::field_behavior); ++i) {
    if (options.GetExtension(google::api::field_behavior, i) == behavior) return true;
  }
  return false;
}

bool IsSet(const Message& message, const FieldDescriptor& field) {
  const Reflection& r = *message.GetReflection();
  return field.is_repeated() ? r.FieldSize(message, &field) > 0 : r.HasField(message, &field);
}

void CheckFieldRules(const Message& message, const FieldDescriptor& field, const std::string& path,
                     std::vector<Violation>* violations) {
  if (!field.is_repeated()) {
    CheckElement(message, field, kWhole, path, violations);
    return;
  }
  Checker checker(message, field, path, violations);
  const int count = message.GetReflection()->FieldSize(message, &field);
  checker.CheckItems(count);
  if (field.is_map()) {
    if (field.options().GetExtension(v1::rules).format() == Rules::FORMAT_LABELS) {
      checker.CheckLabels();
    }
    return;
  }
  for (int i = 0; i < count; ++i) {
    CheckElement(message, field, i, path + "[" + std::to_string(i) + "]", violations);
  }
}

}  // namespace gabion::service
