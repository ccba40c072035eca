// What calls without an operation are doing: the part of their transactions that a restart needs.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gabion/store/v1/records.pb.h"
#include "service/domain/request_log.h"
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

  // Adds the removal of the intent of `resource`, which goes or is no more, if there is one; the
  // request whose effect it was has no answer and gets none.
  absl::Status Clear(const std::string& resource, const RequestLog& requests,
                     std::vector<Mutation>* steps) const;
  // The names of all resources with one that begin with `prefix`.
  absl::StatusOr<std::vector<std::string>> Names(std::string_view prefix) const;

  // Nothing if there is none.
  absl::StatusOr<std::optional<store::v1::Intent>> Find(const std::string& resource) const;

 private:
  MetadataStore& store_;
};

}  // namespace gabion::service
