// Random filters over random exports: what a filter finds is what a naive evaluation of the same
// tree finds, and no text whatever makes parsing or matching do anything but answer.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gabion/v1/export.pb.h"
#include "service/list_filter.h"
#include "tests/service/violations_of.h"
#include "tests/support/random_source.h"

namespace gabion::service {
namespace {

using test::RandomSource;
using v1::Export;

constexpr int kExpressions = 3000;
constexpr int kMutations = 20000;
constexpr const char* kWords[] = {"", "a", "ab", "abab", "b", "A*", "x y", "\"", "\\", "AND"};
constexpr const char* kKeys[] = {"k", "k-2", "a/b", "x y", "OR"};

// An expression with what it means, without the code under test.
struct Claim {
  std::string text;
  std::function<bool(const Export&)> truth;
};

Export RandomExport(RandomSource& random) {
  Export exported;
  exported.set_description(random.Pick(kWords));
  for (const char* key : kKeys) {
    if (random.OneIn(3)) (*exported.mutable_labels())[key] = random.Pick(kWords);
  }
  for (uint64_t i = random.Below(3); i > 0; --i) exported.add_uris(random.Pick(kWords));
  exported.set_generation(random.OneIn(4) ? ~uint64_t{0} : random.Below(4));
  if (random.OneIn(2)) exported.mutable_access()->set_max_connections(random.Below(4));
  if (random.OneIn(2)) exported.set_enabled(random.OneIn(2));
  exported.set_read_only(random.OneIn(2));
  exported.set_state(static_cast<Export::State>(random.Below(7)));  // 4 has no name
  if (random.OneIn(2)) {
    exported.mutable_create_time()->set_seconds(static_cast<int64_t>(random.Below(3)));
    exported.mutable_create_time()->set_nanos(static_cast<int>(random.Below(2)));
  }
  return exported;
}

// In quotes, with what would mean something else escaped.
std::string Quoted(RandomSource& random, const std::string& text) {
  const char quote = random.OneIn(2) ? '"' : '\'';
  std::string quoted(1, quote);
  for (const char c : text) {
    if (c == quote || c == '\\' || c == '*') quoted += '\\';
    quoted += c;
  }
  return quoted + quote;
}

std::string Space(RandomSource& random) {
  constexpr const char* kSpaces[] = {"", "", " ", "\t "};
  return random.Pick(kSpaces);
}

struct Comparison {
  const char* text;
  bool (*holds)(int order);
};
constexpr Comparison kComparisons[] = {
    {"=", [](int order) { return order == 0; }}, {"!=", [](int order) { return order != 0; }},
    {"<", [](int order) { return order < 0; }},  {"<=", [](int order) { return order <= 0; }},
    {">", [](int order) { return order > 0; }},  {">=", [](int order) { return order >= 0; }},
};

template <typename T>
int Order(const T& a, const T& b) {
  return a < b ? -1 : static_cast<int>(b < a);
}

std::string Join(RandomSource& random, const std::string& path, const char* comparator,
                 const std::string& value) {
  return path + Space(random) + comparator + Space(random) + value;
}

Claim RandomTextClaim(RandomSource& random) {
  const Comparison& comparison = random.Pick(kComparisons);
  const std::string word = random.Pick(kWords);
  const std::string value = Quoted(random, word);
  const auto holds = [comparison, word](const std::string& text) {
    return comparison.holds(Order(text, word));
  };
  switch (random.Below(4)) {
    case 0:
      return {Join(random, "description", comparison.text, value),
              [holds](const Export& e) { return holds(e.description()); }};
    case 1:
      return {Join(random, "uris", comparison.text, value), [holds](const Export& e) {
                return std::any_of(e.uris().begin(), e.uris().end(), holds);
              }};
    case 2:  // a prefix
      return {Join(random, "description", "=", value.substr(0, value.size() - 1) + "*" + value[0]),
              [word](const Export& e) { return e.description().starts_with(word); }};
    default: {
      const std::string key = random.Pick(kKeys);
      const bool quote = key == "x y" || random.OneIn(3);
      const std::string path = "labels." + (quote ? Quoted(random, key) : key);
      return {Join(random, path, comparison.text, value), [holds, key](const Export& e) {
                const auto found = e.labels().find(key);
                return found != e.labels().end() && holds(found->second);
              }};
    }
  }
}

Claim RandomNumberClaim(RandomSource& random) {
  const Comparison& comparison = random.Pick(kComparisons);
  const uint64_t number = random.Below(4);
  switch (random.Below(3)) {
    case 0: {
      const uint64_t wanted = random.OneIn(2) ? ~uint64_t{0} - number : number;
      return {Join(random, "generation", comparison.text, absl::StrCat(wanted)),
              [comparison, wanted](const Export& e) {
                return comparison.holds(Order<uint64_t>(e.generation(), wanted));
              }};
    }
    case 1:
      return {Join(random, "access.max_connections", comparison.text, absl::StrCat(number)),
              [comparison, number](const Export& e) {
                return e.has_access() &&
                       comparison.holds(Order<uint64_t>(e.access().max_connections(), number));
              }};
    default: {
      const int64_t nanos = static_cast<int64_t>(random.Below(2));
      const std::string fraction = nanos == 0 ? "" : ".000000001";
      return {Join(random, "create_time", comparison.text,
                   absl::StrCat("1970-01-01T00:00:0", number, fraction, "Z")),
              [comparison, number, nanos](const Export& e) {
                const int64_t wanted = static_cast<int64_t>(number) * 1000000000 + nanos;
                const int64_t is = e.create_time().seconds() * 1000000000 + e.create_time().nanos();
                return e.has_create_time() && comparison.holds(Order(is, wanted));
              }};
    }
  }
}

Claim RandomOtherClaim(RandomSource& random) {
  const bool yes = random.OneIn(2);
  const char* const value = yes ? "true" : "false";
  const std::string key = random.Pick(kKeys);
  switch (random.Below(7)) {
    case 0:
      return {Join(random, "read_only", "=", value),
              [yes](const Export& e) { return e.read_only() == yes; }};
    case 1:
      return {Join(random, "enabled", "!=", value),
              [yes](const Export& e) { return e.has_enabled() && e.enabled() != yes; }};
    case 2:
      return {Join(random, "state", yes ? "=" : "!=", "STATE_FAILED"),
              [yes](const Export& e) { return (e.state() == Export::STATE_FAILED) == yes; }};
    case 3:
      return {Join(random, "labels", ":", Quoted(random, key)),
              [key](const Export& e) { return e.labels().contains(key); }};
    case 4:
      return {Join(random, "access", ":", "*"), [](const Export& e) { return e.has_access(); }};
    case 5:
      return {Join(random, "uris", ":", "*"), [](const Export& e) { return e.uris_size() > 0; }};
    default:
      return {Join(random, "description", ":", "Ab"),
              [](const Export& e) { return e.description().find("ab") != std::string::npos; }};
  }
}

Claim RandomClaim(RandomSource& random, int depth);

// Parts joined by AND, a space, or OR. `any`: by OR.
Claim RandomJoint(RandomSource& random, int depth, bool any) {
  Claim joint;
  std::vector<std::function<bool(const Export&)>> truths;
  for (uint64_t i = random.Between(1, 3); i > 0; --i) {
    Claim part = any ? RandomClaim(random, depth) : RandomJoint(random, depth, true);
    joint.text += part.text;
    if (i > 1) joint.text += any ? " OR " : (random.OneIn(2) ? " AND " : " ");
    truths.push_back(part.truth);
  }
  joint.truth = [truths, any](const Export& e) {
    for (const auto& truth : truths) {
      if (truth(e) == any) return any;
    }
    return !any;
  };
  return joint;
}

// A comparison or parentheses, negated or not.
Claim RandomClaim(RandomSource& random, int depth) {
  Claim claim;
  if (depth > 0 && random.OneIn(4)) {
    claim = RandomJoint(random, depth - 1, false);
    claim.text = "(" + Space(random) + claim.text + Space(random) + ")";
  } else {
    using Make = Claim (*)(RandomSource&);
    constexpr Make kMakers[] = {RandomTextClaim, RandomNumberClaim, RandomOtherClaim};
    claim = random.Pick(kMakers)(random);
  }
  if (!random.OneIn(4)) return claim;
  return {(random.OneIn(2) ? "-" : "NOT ") + claim.text,
          [truth = claim.truth](const Export& e) { return !truth(e); }};
}

TEST(ListFilterPropertyTest, FindsWhatANaiveEvaluationFinds) {
  RandomSource random;
  int found = 0;
  int parsed = 0;
  for (int i = 0; i < kExpressions; ++i) {
    const Claim claim = RandomJoint(random, 3, false);
    SCOPED_TRACE(claim.text);
    const auto filter = ParseListFilter(Export::descriptor(), claim.text);
    if (!filter.ok()) {  // only for its size
      ASSERT_TRUE(claim.text.size() > kMaxFilterBytes) << filter.status();
      continue;
    }
    ++parsed;
    for (int j = 0; j < 10; ++j) {
      const Export exported = RandomExport(random);
      ASSERT_EQ(filter->Matches(exported), claim.truth(exported)) << exported.DebugString();
      found += filter->Matches(exported) ? 1 : 0;
    }
  }
  // The comparison means something only if there is much of both answers.
  EXPECT_GT(parsed, kExpressions * 9 / 10);
  EXPECT_GT(found, parsed);
  EXPECT_LT(found, parsed * 9);
}

void Mutate(RandomSource& random, std::string* text) {
  constexpr const char* kTokens[] = {" AND ", " OR ", "NOT ", "-",  "(",   ")", "\"", "'",    "\\",
                                     "*",     ".",    ":",    "!=", "=",   "<", ">=", "\xff", "é",
                                     " ",     "9",    "x",    "Z",  "...", ",", "1e"};
  for (uint64_t i = random.Below(4); i > 0; --i) {
    const size_t at = random.Below(text->size() + 1);
    switch (random.Below(4)) {
      case 0:
        text->insert(at, random.Pick(kTokens));
        break;
      case 1:
        text->erase(at, random.Between(1, 4));
        break;
      case 2:
        if (at < text->size()) (*text)[at] = static_cast<char>(random.Below(256));
        break;
      default:
        text->insert(at, text->substr(random.Below(text->size() + 1), random.Below(40)));
    }
  }
}

TEST(ListFilterPropertyTest, AnyTextIsAnErrorOrAFilterThatAnswers) {
  RandomSource random;
  const Export exported = RandomExport(random);
  int parsed = 0;
  for (int i = 0; i < kMutations; ++i) {
    std::string text = RandomJoint(random, 2, false).text;
    Mutate(random, &text);
    SCOPED_TRACE(text);
    const auto filter = ParseListFilter(Export::descriptor(), text);
    if (!filter.ok()) {
      ASSERT_EQ(ViolationsOf(filter.status()).at(0), "filter FILTER_EXPRESSION_INVALID");
      continue;
    }
    ++parsed;
    // Whatever it means, its negation means the opposite.
    const auto opposite = ParseListFilter(Export::descriptor(), "NOT (" + text + ")");
    if (opposite.ok()) {
      ASSERT_NE(filter->Matches(exported), opposite->Matches(exported));
    } else {
      ASSERT_TRUE(filter->matches_all() || text.size() > kMaxFilterBytes - 6);
    }
  }
  EXPECT_GT(parsed, kMutations / 20);
  EXPECT_LT(parsed, kMutations * 19 / 20);
}

}  // namespace
}  // namespace gabion::service
