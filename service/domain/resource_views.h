// Resources as their Get method tells them, whatever kind they are.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "gabion/v1/watch.pb.h"

namespace gabion::service {

// What a watch asks the managers. Owned by the domain; any thread of the executor, which blocks.
class ResourceViews {
 public:
  virtual ~ResourceViews() = default;

  // For each of the names, in their order: a message whose `name` and `resource` are set to the
  // resource as Get would tell it now. NOT_FOUND if there is none (any more).
  virtual std::vector<absl::StatusOr<v1::WatchResponse>> View(
      std::span<const std::string> names) = 0;

  // The names in a collection of which the store has no rows, because the configuration says what
  // is in it ("pools"). Empty for every other.
  virtual absl::StatusOr<std::vector<std::string>> Configured(std::string_view collection) = 0;
};

}  // namespace gabion::service
