// A filter's comparison tied to the fields of a type: the path is resolved once, when the
// expression is parsed, and walked for each message. Used by list_filter only.
#pragma once

#include <memory>
#include <optional>
#include <variant>
#include <vector>

#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "service/filter_syntax.h"
#include "service/filter_value.h"

namespace gabion::service {

// One comparison of one type of message; owned by the filter that it is part of. A value;
// immutable, any thread.
class BoundTerm {
 public:
  // Finds the term's path in `type` and checks that its value fits.
  static std::variant<BoundTerm, FilterFault> Bind(const google::protobuf::Descriptor& type,
                                                   FilterTerm term);

  // True if the comparison holds for any of the values that the path leads to.
  bool Matches(const google::protobuf::Message& message) const;

 private:
  friend class PathBinder;

  // From a message to values of its field: to the only one, to every element, or, in a map, to the
  // entry with the key, whose next step is the entry's value.
  struct Step {
    const google::protobuf::FieldDescriptor* field = nullptr;
    std::optional<FieldValue> key;
  };
  // What is asked of the values at the end.
  struct Exists {};
  struct Packed {  // the rest of the path goes on in an Any, whose type is known when it is seen
    FilterTerm rest;
  };
  using Question = std::variant<Exists, ValueTest, Packed>;

  bool WalkFrom(const google::protobuf::Message& message, size_t step) const;
  bool WalkOne(const google::protobuf::Message& message, size_t step, int index) const;
  bool WalkEntry(const google::protobuf::Message& message, size_t step) const;

  std::vector<Step> steps_;  // not empty
  Question question_;
};

}  // namespace gabion::service
