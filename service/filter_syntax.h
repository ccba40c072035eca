// The syntax of list filters, a subset of AIP-160: text to tree, without a look at any resource.
//
//   filter     = [ expression ]
//   expression = factor { ["AND"] factor }
//   factor     = term { "OR" term }               so OR binds tighter than AND
//   term       = [ "NOT" | "-" ] ( comparison | "(" expression ")" )
//   comparison = path ( "=" | "!=" | "<" | "<=" | ">" | ">=" | ":" ) value
//   path       = field { "." field }              without spaces
//   field      = letter or digit or "_", then also "-" and "/" | string
//   value      = any characters but spaces and ()"'<>=!, | string
//   string     = in "..." or '...'; \ before a quote, \ or * takes its meaning away
//
// AND, OR and NOT are in capitals. A `*` in a value stands for any text. Pure functions; any
// thread. Used by list_filter only.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace gabion::service {

// What an expression may cost.
inline constexpr size_t kMaxFilterBytes = 2048;
inline constexpr size_t kMaxFilterDepth = 16;  // of parentheses, and of fields in a path
inline constexpr size_t kMaxFilterTerms = 128;

enum class FilterComparator {
  kEqual,
  kNotEqual,
  kLess,
  kLessOrEqual,
  kGreater,
  kGreaterOrEqual,
  kHas,
};

// `at`, here and below: where it begins in the expression, in bytes.
struct FilterField {
  std::string name;
  size_t at = 0;
};

struct FilterLiteral {
  // The text between the wildcards: one piece if there are none.
  std::vector<std::string> pieces;
  bool quoted = false;
  size_t at = 0;

  bool has_wildcard() const { return pieces.size() > 1; }
  // `*` without quotes: any value at all.
  bool is_any() const {
    return !quoted && pieces.size() == 2 && pieces[0].empty() && pieces[1].empty();
  }
  // As it was written, without quotes and escapes.
  std::string Text() const;
};

struct FilterTerm {
  std::vector<FilterField> path;  // not empty
  FilterComparator comparator = FilterComparator::kEqual;
  size_t comparator_at = 0;
  FilterLiteral literal;
};

// At most kMaxFilterDepth levels of kAnd; each may have one level of kOr between.
struct FilterNode {
  enum class Kind { kTerm, kAnd, kOr };
  Kind kind = Kind::kAnd;
  bool negated = false;
  size_t term = 0;                   // kTerm: its place among the terms
  std::vector<FilterNode> children;  // kAnd without children is true
};

struct FilterSyntax {
  std::vector<FilterTerm> terms;
  FilterNode root;
};

// FILTER_EXPRESSION_INVALID.
absl::StatusOr<FilterSyntax> ParseFilterSyntax(std::string_view expression);

// What is wrong, and where.
struct FilterFault {
  size_t at = 0;
  std::string what;
};

// FILTER_EXPRESSION_INVALID for the field `filter`, with the column, counted in characters from 1.
absl::Status FilterError(std::string_view expression, const FilterFault& fault);

// "<=".
std::string_view Spelling(FilterComparator comparator);

}  // namespace gabion::service
