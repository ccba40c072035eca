// The `filter` of List requests: a subset of AIP-160 over any resource, by its descriptor.
//
// Examples: state = STATE_ACTIVE AND (labels.tier = "gold" OR labels.tier = "silver")
//           NOT uris:* create_time > "2026-01-31T00:00:00Z"
//           name = "images/web-*" -labels:retired
//
// Expressions: comparisons joined by AND (or just a space) and OR, which binds tighter than AND;
// NOT or - in front of a comparison or of parentheses. filter_syntax.h has the grammar. There are
// no functions, and no search for a word alone.
//
// Paths go through messages and lists (any element), name the keys of maps (in quotes if they are
// not letters, digits, _, - and /) and the fields of what a google.protobuf.Any holds. A path that
// ends nowhere makes the comparison false, whatever the comparator: a message that is not set, an
// optional field that is not set, a key that is not there, an Any of a type that is not linked or
// has no such field. So `NOT labels.tier = "gold"` finds also what has no such label, and
// `labels.tier != "gold"` does not. Fields without presence compare by their default value.
//
// Comparators:
//   =  !=         everything but messages and bytes. In strings, * stands for any text (\* in
//   quotes
//                 is a star). Of a list: true if it is so for any element.
//   <  <=  >  >=  numbers, strings (by bytes), timestamps, durations
//   :             string: contains the text, in any case of ASCII letters. Other values: as =.
//   List:
//                 any element is equal. Map: has the key; `m.key:v`: has it with that value.
//                 Message: has the field of that name set. With * as the value: is set, or is not
//                 empty.
//
// Values: strings with or without quotes; numbers and true, false without; enums by the name of
// the value; timestamps in RFC 3339; durations in seconds, such as 10s or 0.5s.
//
// What does not fit the resource's type is an error when the expression is parsed, also inside of
// an Any of which the types that it can hold are known (an operation's metadata, say) if it fits
// none of them; matching always has an answer.
#pragma once

#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "service/filter_path.h"
#include "service/filter_syntax.h"

namespace gabion::service {

// A parsed expression for one type of resource. A value; immutable, any thread.
class ListFilter {
 public:
  // REQUIRES: `resource` is of the type that the filter was parsed for.
  bool Matches(const google::protobuf::Message& resource) const;

  // True if it has no comparison, so that everything matches.
  bool matches_all() const { return terms_.empty(); }

 private:
  friend absl::StatusOr<ListFilter> ParseListFilter(const google::protobuf::Descriptor* resource,
                                                    std::string_view expression);
  bool Holds(const FilterNode& node, const google::protobuf::Message& resource) const;

  const google::protobuf::Descriptor* resource_ = nullptr;
  FilterNode root_;
  std::vector<BoundTerm> terms_;
};

// INVALID_ARGUMENT FILTER_EXPRESSION_INVALID for the field `filter`, with the column. An empty
// expression matches everything. `resource` must outlive the filter.
absl::StatusOr<ListFilter> ParseListFilter(const google::protobuf::Descriptor* resource,
                                           std::string_view expression);

}  // namespace gabion::service
