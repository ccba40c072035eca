// The right side of a filter's comparison, read as a value of the field on the left side.
// Immutable; any thread. Used by list_filter only.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "service/field_value.h"
#include "service/filter_syntax.h"

namespace gabion::service {

// Text with wildcards.
class TextPattern {
 public:
  // `pieces`: what must occur in this order, the first one at the beginning, the last one at the
  // end. Not empty. `ignore_case`: of ASCII letters.
  TextPattern(std::vector<std::string> pieces, bool ignore_case);

  // At most |text| * |pieces| steps.
  bool Matches(std::string_view text) const;

 private:
  std::vector<std::string> pieces_;
  bool ignore_case_;
};

// A comparison with one value, for any element of a field.
class ValueTest {
 public:
  // Whether a `:` on text means "contains" or, in lists and maps, "is" (AIP-160).
  enum class Has { kContains, kIs };

  // REQUIRES: the field's kind has an order.
  static std::variant<ValueTest, FilterFault> Make(const google::protobuf::FieldDescriptor& field,
                                                   FilterComparator comparator,
                                                   const FilterLiteral& literal, Has has);

  bool Matches(const google::protobuf::Message& message,
               const google::protobuf::FieldDescriptor& field, int index) const;

 private:
  using Wanted = std::variant<FieldValue, TextPattern>;
  ValueTest(FilterComparator comparator, Wanted wanted)
      : comparator_(comparator), wanted_(std::move(wanted)) {}

  FilterComparator comparator_;
  Wanted wanted_;
};

// The number of an integer literal of at most 20 digits; nullopt for anything else.
std::optional<absl::int128> ParseInteger(std::string_view text);

}  // namespace gabion::service
