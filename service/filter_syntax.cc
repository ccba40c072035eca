#include "service/filter_syntax.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/base/text.h"
#include "service/errors.h"
#include "service/text.h"

namespace gabion::service {
namespace {

using Comparator = FilterComparator;
using Kind = FilterNode::Kind;

constexpr std::string_view kSpaces = " \t\r\n";
constexpr std::string_view kEndsValue = " \t\r\n()\"'<>=!,";
constexpr size_t kShownBytes = 40;

// Longer spellings first.
constexpr std::pair<std::string_view, Comparator> kComparators[] = {
    {"!=", Comparator::kNotEqual},
    {"<=", Comparator::kLessOrEqual},
    {">=", Comparator::kGreaterOrEqual},
    {"=", Comparator::kEqual},
    {"<", Comparator::kLess},
    {">", Comparator::kGreater},
    {":", Comparator::kHas},
};

bool IsOneOf(std::string_view characters, char c) {
  return characters.find(c) != std::string_view::npos;
}

bool StartsField(char c) { return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_'; }

bool GoesOnInField(char c) { return StartsField(c) || c == '-' || c == '/'; }

// Recursive descent; every function leaves at_ behind what it has taken. After a fault nothing that
// it returns means anything.
class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  FilterSyntax Run() {
    SkipSpaces();
    if (!AtEnd()) {
      syntax_.root = ParseExpression(0);
      // Only a parenthesis ends an expression before the text does.
      if (!AtEnd()) Fail(at_, "there is no '(' for this ')'");
    }
    return std::move(syntax_);
  }

  const std::optional<FilterFault>& fault() const { return fault_; }

 private:
  bool AtEnd() const { return at_ == text_.size(); }
  char Peek() const { return text_[at_]; }

  void Fail(size_t at, std::string what) {
    if (!fault_) fault_ = FilterFault{at, std::move(what)};
    at_ = text_.size();
  }

  void SkipSpaces() { at_ = std::min(text_.find_first_not_of(kSpaces, at_), text_.size()); }

  // The word at at_ that is not part of a path: AND, OR, NOT or a field's name.
  std::string_view PeekWord() const {
    size_t end = at_;
    while (end < text_.size() && GoesOnInField(text_[end])) ++end;
    return text_.substr(at_, end - at_);
  }

  bool TakeWord(std::string_view word) {
    if (PeekWord() != word) return false;
    at_ += word.size();
    return true;
  }

  FilterNode ParseExpression(size_t depth) {
    FilterNode all{.kind = Kind::kAnd};
    for (;;) {
      all.children.push_back(ParseFactor(depth));
      SkipSpaces();
      if (AtEnd() || Peek() == ')') return all;
      if (TakeWord("AND")) SkipSpaces();
    }
  }

  FilterNode ParseFactor(size_t depth) {
    FilterNode first = ParseTerm(depth);
    SkipSpaces();
    if (PeekWord() != "OR") return first;
    FilterNode any{.kind = Kind::kOr};
    any.children.push_back(std::move(first));
    while (TakeWord("OR")) {
      SkipSpaces();
      any.children.push_back(ParseTerm(depth));
      SkipSpaces();
    }
    return any;
  }

  FilterNode ParseTerm(size_t depth) {
    bool negated = false;
    if (!AtEnd() && Peek() == '-') {
      negated = true;
      ++at_;
    } else if (TakeWord("NOT")) {
      negated = true;
      SkipSpaces();
    }
    FilterNode node = !AtEnd() && Peek() == '(' ? ParseGroup(depth) : ParseComparison();
    node.negated = negated;
    if (!AtEnd() && !IsOneOf(kSpaces, Peek()) && Peek() != ')') {
      Fail(at_, Peek() == '(' ? "functions are not supported, and groups need a space in front"
                              : "a space or the end must follow here");
    }
    return node;
  }

  FilterNode ParseGroup(size_t depth) {
    const size_t open = at_;
    if (depth == kMaxFilterDepth) {
      Fail(open, absl::StrCat("parentheses are nested more than ", kMaxFilterDepth, " deep"));
      return {};
    }
    ++at_;
    SkipSpaces();
    FilterNode inside = ParseExpression(depth + 1);
    if (AtEnd()) {
      Fail(open, "there is no ')' for this '('");
    } else {
      ++at_;
    }
    return inside;
  }

  FilterNode ParseComparison() {
    FilterTerm term;
    const size_t begin = at_;
    term.path = ParsePath();
    SkipSpaces();
    term.comparator_at = at_;
    if (const auto comparator = TakeComparator()) {
      term.comparator = *comparator;
      SkipSpaces();
      term.literal = ParseLiteral();
    } else if (!AtEnd() && Peek() == '(') {
      Fail(begin, "functions are not supported");
    } else {
      Fail(begin, "a word alone is not searched for: compare a field with it, as in name = \"" +
                      Printable(text_.substr(begin, at_ - begin), kShownBytes) + "\"");
    }
    if (syntax_.terms.size() == kMaxFilterTerms) {
      Fail(begin, absl::StrCat("there are more than ", kMaxFilterTerms, " comparisons"));
    }
    if (fault_) return {};
    syntax_.terms.push_back(std::move(term));
    return {.kind = Kind::kTerm, .term = syntax_.terms.size() - 1};
  }

  std::vector<FilterField> ParsePath() {
    std::vector<FilterField> path;
    for (;;) {
      if (path.size() == kMaxFilterDepth) {
        Fail(at_, absl::StrCat("a path of more than ", kMaxFilterDepth, " fields"));
        return path;
      }
      path.push_back(ParseField(path.empty()));
      if (AtEnd() || Peek() != '.') return path;
      ++at_;
    }
  }

  FilterField ParseField(bool first) {
    FilterField field{.at = at_};
    if (AtEnd()) {
      Fail(at_, first ? "a comparison is missing at the end" : "a field is missing after '.'");
    } else if (IsOneOf("\"'", Peek())) {
      field.name = absl::StrJoin(ParseString(), "*");  // in a name it is a character
    } else if (!StartsField(Peek())) {
      Fail(at_, first ? "a field's name or '(' is missing here" : "a field is missing after '.'");
    } else {
      field.name = std::string(PeekWord());
      if (first && (field.name == "AND" || field.name == "OR" || field.name == "NOT")) {
        Fail(at_, "a comparison is missing before " + field.name);
      } else {
        at_ += field.name.size();
      }
    }
    return field;
  }

  std::optional<Comparator> TakeComparator() {
    for (const auto& [spelling, comparator] : kComparators) {
      if (!text_.substr(at_).starts_with(spelling)) continue;
      at_ += spelling.size();
      return comparator;
    }
    return std::nullopt;
  }

  FilterLiteral ParseLiteral() {
    FilterLiteral literal{.at = at_};
    if (!AtEnd() && IsOneOf("\"'", Peek())) {
      literal.quoted = true;
      literal.pieces = ParseString();
      return literal;
    }
    const size_t end = std::min(text_.find_first_of(kEndsValue, at_), text_.size());
    if (end == at_) {
      Fail(at_, !AtEnd() && Peek() == '(' ? "groups of values are not supported"
                                          : "a value is missing here");
      return literal;
    }
    literal.pieces.emplace_back();
    for (; at_ < end; ++at_) {
      if (Peek() == '*') {
        literal.pieces.emplace_back();
      } else {
        literal.pieces.back() += Peek();
      }
    }
    return literal;
  }

  // The string at at_, cut at its wildcards.
  std::vector<std::string> ParseString() {
    const size_t open = at_;
    const char quote = Peek();
    std::vector<std::string> pieces(1);
    for (++at_; !AtEnd() && Peek() != quote; ++at_) {
      if (Peek() == '*') {
        pieces.emplace_back();
        continue;
      }
      if (Peek() == '\\') {
        ++at_;
        if (AtEnd()) break;
        if (!IsOneOf("\"'\\*", Peek())) {
          Fail(at_ - 1, "\\ may stand before \", ', \\ and * only");
          return pieces;
        }
      }
      pieces.back() += Peek();
    }
    if (AtEnd()) {
      Fail(open, absl::StrCat("this string has no closing ", AsAbsl({&quote, 1})));
    } else {
      ++at_;
    }
    return pieces;
  }

  const std::string_view text_;
  size_t at_ = 0;
  FilterSyntax syntax_;
  std::optional<FilterFault> fault_;
};

// Characters of UTF-8 before `at`, plus one.
size_t ColumnOf(std::string_view text, size_t at) {
  const std::string_view front = text.substr(0, at);
  return 1 + static_cast<size_t>(std::count_if(front.begin(), front.end(), [](char c) {
           return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
         }));
}

}  // namespace

std::string FilterLiteral::Text() const { return absl::StrJoin(pieces, "*"); }

absl::StatusOr<FilterSyntax> ParseFilterSyntax(std::string_view expression) {
  if (expression.size() > kMaxFilterBytes) {
    return FilterError(expression, {kMaxFilterBytes, absl::StrCat("the filter is longer than ",
                                                                  kMaxFilterBytes, " bytes")});
  }
  Parser parser(expression);
  FilterSyntax syntax = parser.Run();
  if (parser.fault()) return FilterError(expression, *parser.fault());
  return syntax;
}

absl::Status FilterError(std::string_view expression, const FilterFault& fault) {
  const std::string text =
      absl::StrCat("column ", ColumnOf(expression, fault.at), ": ", fault.what);
  return Error(reason::kFilterExpressionInvalid, "filter, " + text).Field("filter", text);
}

std::string_view Spelling(FilterComparator comparator) {
  for (const auto& [spelling, known] : kComparators) {
    if (known == comparator) return spelling;
  }
  return "?";
}

}  // namespace gabion::service
