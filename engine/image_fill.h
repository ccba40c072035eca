// The bytes of an image's file that is being made: copied, reserved, or left out.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "engine/formats/qcow2/create.h"
#include "engine/image_spec.h"

namespace gabion::engine {

struct FillJob {
  int from = -1;  // the file that is copied; -1: none, all is a hole
  int to = -1;    // a file of `size` bytes
  uint64_t size = 0;
  Preallocation preallocation = Preallocation::kOff;
  const qcow2::NewImageLayout* layout = nullptr;  // of a new qcow2 image: what the file begins with
};

// Does about `budget` bytes of work from byte `begin` on, and at least a little; returns where it
// got. Blocks. What is there already may be there from an earlier call with the same job.
absl::StatusOr<uint64_t> Fill(const FillJob& job, uint64_t begin, uint64_t budget);

}  // namespace gabion::engine
