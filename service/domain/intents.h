// What calls without an operation are doing: the part of their transactions that a restart needs.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gabion/store/v1/records.pb.h"
#include "service/store/metadata_store.h"

namespace gabion::service {

// One intent a resource at a time, in the collection "intents" under the resource's name. Owned by
// the domain; any thread, which blocks.
class Intents {
 public:
  // `store` outlives this.
  explicit Intents(MetadataStore& store) : store_(store) {}

  // A step that writes the intent of `resource`.
  static Mutation Writing(const std::string& resource, const store::v1::Intent& intent);
  // A step that removes it. There must be one.
  static Mutation Removing(const std::string& resource);

  // Nothing if there is none.
  absl::StatusOr<std::optional<store::v1::Intent>> Find(const std::string& resource) const;

 private:
  MetadataStore& store_;
};

}  // namespace gabion::service
