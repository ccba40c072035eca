#include "service/filter_value.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "engine/base/text.h"
#include "google/protobuf/timestamp.pb.h"
#include "google/protobuf/util/time_util.h"
#include "service/text.h"

namespace gabion::service {
namespace {

using google::protobuf::EnumDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::util::TimeUtil;
using Comparator = FilterComparator;

constexpr size_t kMaxDigits = 20;  // 2^64 has as many
constexpr int kNanosDigits = 9;
constexpr int64_t kMaxDurationSeconds = 315'576'000'000;  // of google.protobuf.Duration
constexpr int kShownEnumValues = 8;
constexpr size_t kShownBytes = 60;

bool AllDigits(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return absl::ascii_isdigit(static_cast<unsigned char>(c));
  });
}

bool TakeSign(std::string_view* text) {
  if (!text->starts_with('-')) return false;
  text->remove_prefix(1);
  return true;
}

// [-]digits[.digits][(e|E)[+|-]digits], finite.
std::optional<double> ParseReal(std::string_view text) {
  std::string_view rest = text;
  TakeSign(&rest);
  const size_t e = rest.find_first_of("eE");
  std::string_view mantissa = rest.substr(0, e);
  if (e != std::string_view::npos) {
    std::string_view exponent = rest.substr(e + 1);
    if (exponent.starts_with('+') || exponent.starts_with('-')) exponent.remove_prefix(1);
    if (!AllDigits(exponent)) return std::nullopt;
  }
  const size_t dot = mantissa.find('.');
  if (dot != std::string_view::npos && !AllDigits(mantissa.substr(dot + 1))) return std::nullopt;
  if (!AllDigits(mantissa.substr(0, dot))) return std::nullopt;
  double number = 0;
  if (!absl::SimpleAtod(AsAbsl(text), &number) || !std::isfinite(number)) return std::nullopt;
  return number;
}

// [-]digits[.digits]s, as the JSON form of google.protobuf.Duration.
std::optional<absl::int128> ParseDuration(std::string_view text) {
  if (!text.ends_with('s')) return std::nullopt;
  text.remove_suffix(1);
  const bool negative = TakeSign(&text);
  const size_t dot = text.find('.');
  const auto seconds = ParseInteger(text.substr(0, dot));
  if (!seconds || *seconds < 0 || *seconds > kMaxDurationSeconds) return std::nullopt;
  int32_t nanos = 0;
  if (dot != std::string_view::npos) {
    std::string fraction(text.substr(dot + 1));
    if (!AllDigits(fraction) || fraction.size() > kNanosDigits) return std::nullopt;
    fraction.resize(kNanosDigits, '0');
    if (!absl::SimpleAtoi(fraction, &nanos)) return std::nullopt;
  }
  const absl::int128 total = Nanoseconds(static_cast<int64_t>(*seconds), nanos);
  return negative ? -total : total;
}

std::optional<absl::int128> ParseTimestamp(std::string_view text) {
  google::protobuf::Timestamp time;
  if (!TimeUtil::FromString(std::string(text), &time)) return std::nullopt;
  return Nanoseconds(time.seconds(), time.nanos());
}

std::optional<absl::int128> ParseBool(std::string_view text) {
  if (text == "true") return 1;
  if (text == "false") return 0;
  return std::nullopt;
}

std::optional<absl::int128> ParseEnum(const EnumDescriptor& type, std::string_view text) {
  const auto* value = type.FindValueByName(std::string(text));
  if (value == nullptr) return std::nullopt;
  return absl::int128(value->number());
}

template <typename T>
std::optional<FieldValue> AsValue(std::optional<T> value) {
  if (!value) return std::nullopt;
  return FieldValue(*std::move(value));
}

// REQUIRES: the field's kind has an order and is not text.
std::optional<FieldValue> ParseValue(const FieldDescriptor& field, const FilterLiteral& literal) {
  const std::string text = literal.Text();
  switch (KindOf(field)) {
    case ValueKind::kInteger:
      return literal.quoted ? std::nullopt : AsValue(ParseInteger(text));
    case ValueKind::kBool:
      return literal.quoted ? std::nullopt : AsValue(ParseBool(text));
    case ValueKind::kReal: {
      auto number = literal.quoted ? std::nullopt : ParseReal(text);
      // What the field would hold of it: 0.1 as float is another number than 0.1 as double.
      const bool is_float = field.cpp_type() == FieldDescriptor::CPPTYPE_FLOAT;
      if (number && is_float && std::abs(*number) <= std::numeric_limits<float>::max()) {
        number = static_cast<double>(static_cast<float>(*number));
      }
      return AsValue(number);
    }
    case ValueKind::kEnum:
      return AsValue(ParseEnum(*field.enum_type(), text));
    case ValueKind::kTimestamp:
      return AsValue(ParseTimestamp(text));
    case ValueKind::kDuration:
      return AsValue(ParseDuration(text));
    default:
      return std::nullopt;
  }
}

std::string EnumHint(const EnumDescriptor& type) {
  std::string hint = "one of";
  const int shown = std::min(type.value_count(), kShownEnumValues);
  for (int i = 0; i < shown; ++i) hint += (i > 0 ? ", " : " ") + type.value(i)->name();
  return type.value_count() > shown ? hint + ", ..." : hint;
}

// How values of the kind are written.
std::string HintFor(const FieldDescriptor& field) {
  switch (KindOf(field)) {
    case ValueKind::kInteger:
      return "digits without quotes, such as 4096";
    case ValueKind::kBool:
      return "true or false without quotes";
    case ValueKind::kReal:
      return "a number without quotes, such as 0.5";
    case ValueKind::kEnum:
      return EnumHint(*field.enum_type());
    case ValueKind::kTimestamp:
      return "RFC 3339, such as \"2026-01-31T12:00:00Z\"";
    case ValueKind::kDuration:
      return "seconds, such as 10s or 0.5s";
    default:
      return "text";
  }
}

bool IsOrdering(Comparator comparator) {
  return comparator != Comparator::kEqual && comparator != Comparator::kNotEqual &&
         comparator != Comparator::kHas;
}

bool Holds(Comparator comparator, int order) {
  switch (comparator) {
    case Comparator::kEqual:
    case Comparator::kHas:
      return order == 0;
    case Comparator::kNotEqual:
      return order != 0;
    case Comparator::kLess:
      return order < 0;
    case Comparator::kLessOrEqual:
      return order <= 0;
    case Comparator::kGreater:
      return order > 0;
    case Comparator::kGreaterOrEqual:
      return order >= 0;
  }
  return false;
}

}  // namespace

TextPattern::TextPattern(std::vector<std::string> pieces, bool ignore_case)
    : pieces_(std::move(pieces)), ignore_case_(ignore_case) {
  if (!ignore_case_) return;
  for (std::string& piece : pieces_) absl::AsciiStrToLower(&piece);
}

bool TextPattern::Matches(std::string_view text) const {
  std::string lower;
  if (ignore_case_) {
    lower = absl::AsciiStrToLower(AsAbsl(text));
    text = lower;
  }
  const std::string& first = pieces_.front();
  const std::string& last = pieces_.back();
  if (pieces_.size() == 1) return text == first;
  if (text.size() < first.size() + last.size()) return false;
  if (!text.starts_with(first) || !text.ends_with(last)) return false;
  text.remove_prefix(first.size());
  text.remove_suffix(last.size());
  // The leftmost place of each piece leaves the most room for those that follow.
  for (size_t i = 1; i + 1 < pieces_.size(); ++i) {
    const size_t at = text.find(pieces_[i]);
    if (at == std::string_view::npos) return false;
    text.remove_prefix(at + pieces_[i].size());
  }
  return true;
}

std::variant<ValueTest, FilterFault> ValueTest::Make(const FieldDescriptor& field,
                                                     Comparator comparator,
                                                     const FilterLiteral& literal, Has has) {
  const ValueKind kind = KindOf(field);
  const std::string what = field.name() + " is " + std::string(NameOf(kind));
  if (kind == ValueKind::kText) {
    if (IsOrdering(comparator)) {
      if (!literal.has_wildcard()) return ValueTest(comparator, FieldValue(literal.pieces[0]));
      return FilterFault{literal.at, "* works with =, != and : only"};
    }
    std::vector<std::string> pieces = literal.pieces;
    const bool contains = comparator == Comparator::kHas && has == Has::kContains;
    if (contains) {
      pieces.insert(pieces.begin(), "");
      pieces.emplace_back();
    }
    return ValueTest(comparator, TextPattern(std::move(pieces), contains));
  }
  std::optional<FieldValue> value = ParseValue(field, literal);
  if (!value) {
    return FilterFault{literal.at,
                       absl::StrCat(what, ", not \"", Printable(literal.Text(), kShownBytes),
                                    "\": write ", HintFor(field))};
  }
  if (IsOrdering(comparator) && (kind == ValueKind::kBool || kind == ValueKind::kEnum)) {
    return FilterFault{literal.at, what + ", which has no order: use = or !="};
  }
  return ValueTest(comparator, *std::move(value));
}

bool ValueTest::Matches(const Message& message, const FieldDescriptor& field, int index) const {
  const FieldValue value = ReadValue(message, field, index);
  if (const auto* pattern = std::get_if<TextPattern>(&wanted_)) {
    return pattern->Matches(std::get<std::string>(value)) != (comparator_ == Comparator::kNotEqual);
  }
  const auto* real = std::get_if<double>(&value);
  if (real != nullptr && std::isnan(*real)) return comparator_ == Comparator::kNotEqual;
  return Holds(comparator_, CompareValues(value, std::get<FieldValue>(wanted_)));
}

std::optional<absl::int128> ParseInteger(std::string_view text) {
  const bool negative = TakeSign(&text);
  if (!AllDigits(text) || text.size() > kMaxDigits) return std::nullopt;
  absl::int128 number = 0;
  for (const char digit : text) number = number * 10 + (digit - '0');
  return negative ? -number : number;
}

}  // namespace gabion::service
