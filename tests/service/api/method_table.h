// The methods of the API as the tests of what all of them have in common see them: of which kind
// each is, and for each a call that works.
#pragma once

#include <ostream>
#include <string>
#include <vector>

#include "google/protobuf/descriptor.h"

namespace gabion::service {

enum class MethodKind {
  kGet,
  kList,
  kCreate,
  kUpdate,
  kDelete,
  kUndelete,
  kMutator,  // changes something in a way of its own
  kReader    // shows something in a way of its own
};

// By its name; what has none of the standard ones is kMutator, but for known readers, so that a new
// method is held to more rather than to less.
MethodKind KindOf(const google::protobuf::MethodDescriptor& method);
bool Changes(MethodKind kind);

// Whether its messages are ours, so that it can be held to our rules: google.longrunning is not.
bool HasOurMessages(const google::protobuf::MethodDescriptor& method);

// Requests are in text format; $PAUSED, $OTHER and $DONE stand for operations of the fixture.
struct MethodCase {
  std::string method;   // full name
  std::string request;  // a call that succeeds in the fixture's world
  // For those that change something and have our messages:
  std::string changed;  // merged into `request` it makes another one
  std::string refused;  // merged into `request`, what is there is in the way
  bool waits = false;   // it changes nothing, but ends with the daemon
};

// For GoogleTest.
inline void PrintTo(const MethodCase& one, std::ostream* out) { *out << one.method; }

const std::vector<MethodCase>& MethodCases();

}  // namespace gabion::service
