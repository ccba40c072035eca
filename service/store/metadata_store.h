// Durable desired state: rows of serialized resources, and a log of their changes. Behind one
// interface, so that domain code and its tests do not know what keeps it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace gabion::service {

// One stored resource.
struct Row {
  std::string name;       // the resource's full name: "images/a"
  std::string value;      // serialized
  uint64_t revision = 0;  // of the change that wrote it

  friend bool operator==(const Row&, const Row&) = default;
};

// One step of a transaction.
struct Mutation {
  enum class Kind { kPut, kDelete };
  Kind kind = Kind::kPut;
  std::string collection;  // "images"
  std::string name;
  std::string value;  // kPut only
  // What the row's revision must be for the step to be done: 0, there is no such row; unset,
  // whatever it is (but a row to be deleted must exist).
  std::optional<uint64_t> expected_revision;
};

// The row must not exist / must be as it was read / may be anything.
Mutation Insert(std::string_view collection, std::string_view name, std::string value);
Mutation Replace(std::string_view collection, std::string_view name, std::string value,
                 uint64_t expected_revision);
Mutation Put(std::string_view collection, std::string_view name, std::string value);
Mutation Remove(std::string_view collection, std::string_view name,
                std::optional<uint64_t> expected_revision = std::nullopt);

// One entry of the change log.
struct Change {
  uint64_t revision = 0;
  Mutation::Kind kind = Mutation::Kind::kPut;
  std::string collection;
  std::string name;

  friend bool operator==(const Change&, const Change&) = default;
};

// Some rows of a collection, in the order of their names' bytes.
struct Page {
  std::vector<Row> rows;
  bool more = false;      // there are rows after the last one
  uint64_t revision = 0;  // of the state that this shows
};

// Owned by the daemon's main function; outlives everybody who uses it. Thread-safe. Calls block (a
// commit waits for the disk): make them on the service's executor, never in a gRPC reaction.
class MetadataStore {
 public:
  virtual ~MetadataStore() = default;

  // NOT_FOUND if there is no such row.
  virtual absl::StatusOr<Row> Get(std::string_view collection, std::string_view name) = 0;

  // At most `limit` rows whose names come after `after` (empty: from the first one).
  // REQUIRES: limit > 0.
  virtual absl::StatusOr<Page> List(std::string_view collection, std::string_view after,
                                    size_t limit) = 0;

  // Does all of it or nothing, durably: when this returns OK, a power cut loses none of it. Each
  // step gets a revision of its own in the change log, in order; the last one is returned.
  // If a row is not as expected: ALREADY_EXISTS (expected none), NOT_FOUND (there is none) or
  // ABORTED (it has another revision). A name may occur more than once; steps see earlier ones.
  // REQUIRES: at least one step.
  virtual absl::StatusOr<uint64_t> Commit(const std::vector<Mutation>& steps) = 0;

  // At most `limit` changes after revision `after`, oldest first. OUT_OF_RANGE if some of them were
  // trimmed, or if `after` lies in the future.
  virtual absl::StatusOr<std::vector<Change>> Changes(uint64_t after, size_t limit) = 0;

  // Forgets the changes up to and including `through` (at most the current revision).
  virtual absl::Status TrimChanges(uint64_t through) = 0;

  // Revision of the last change; 0 in a new store. Grows only, also over restarts and trims.
  virtual absl::StatusOr<uint64_t> Revision() = 0;
};

}  // namespace gabion::service
