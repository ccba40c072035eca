// The table of verdicts on headers: one field of a good image is changed, and the table says what
// opening it says.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "tests/engine/formats/qcow2/bytes_of_image.h"

namespace gabion::qcow2::testing {

enum class Verdict {
  kAccept,  // without a warning
  kWarn,    // opens, with a warning that has the text of the mutation
  kReject,  // kFailedPrecondition, with that text
  kLack,    // kUnimplemented, with that text
};

struct Mutation {
  std::string name;  // a GoogleTest name
  std::function<void(ImageFile&)> change;
  Verdict read;
  Verdict write;
  std::string text;  // what the message has in it: the field
  // QEMU refuses to read the image, but Gabion opens it.
  bool only_gabion_opens = false;
};

const std::vector<Mutation>& Mutations();

}  // namespace gabion::qcow2::testing
