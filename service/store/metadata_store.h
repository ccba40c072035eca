// Durable desired state: rows of serialized resources, and a log of their changes. Behind one
// interface, so that domain code and its tests do not know what keeps it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/any_invocable.h"
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

// Which row.
struct RowKey {
  std::string collection;
  std::string name;

  friend bool operator==(const RowKey&, const RowKey&) = default;
};

// One step of a transaction.
struct Mutation {
  // kTouch: something that was observed of the resource has changed. It is logged; no row is read
  // or written, so there need not be one, and if there is, it keeps its revision.
  // The numbers are stored: they never change.
  enum class Kind { kPut = 0, kDelete = 1, kTouch = 2 };
  Kind kind = Kind::kPut;
  std::string collection;  // "images"
  std::string name;
  std::string value;  // kPut only
  // What the row's revision must be for the step to be done: 0, there is no such row; unset,
  // whatever it is (but a row to be deleted must exist). Always unset for kTouch.
  std::optional<uint64_t> expected_revision;
};

// The row must not exist / must be as it was read / may be anything.
Mutation Insert(std::string_view collection, std::string_view name, std::string value);
Mutation Replace(std::string_view collection, std::string_view name, std::string value,
                 uint64_t expected_revision);
Mutation Put(std::string_view collection, std::string_view name, std::string value);
Mutation Remove(std::string_view collection, std::string_view name,
                std::optional<uint64_t> expected_revision = std::nullopt);
Mutation Touch(std::string_view collection, std::string_view name);

// Whether changes of this collection are in the change log. Those of the daemon's own bookkeeping
// (requests, expiries, jobs, intents, settings) are not: their rows only have revisions.
bool IsLogged(std::string_view collection);

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

// Some rows as they were at one moment, in the order in which they were asked for.
struct RowsAt {
  std::vector<std::optional<Row>> rows;  // unset: there is no such row
  uint64_t revision = 0;                 // of the state that this shows
};

// Owned by the daemon's main function; outlives everybody who uses it. Thread-safe. Calls block (a
// commit waits for the disk): make them on the service's executor, never in a gRPC reaction.
//
// Every step of a transaction gets a revision, logged or not, and each one is greater than all
// before it. The revision of a state is that of the last step that led to it.
class MetadataStore {
 public:
  // Told the revision of a state that has come to be.
  using Listener = absl::AnyInvocable<void(uint64_t revision)>;

  virtual ~MetadataStore() = default;

  // NOT_FOUND if there is no such row.
  virtual absl::StatusOr<Row> Get(std::string_view collection, std::string_view name) = 0;

  // The rows of `keys`, all from one state.
  virtual absl::StatusOr<RowsAt> GetMany(std::span<const RowKey> keys) = 0;

  // At most `limit` rows whose names come after `after` (empty: from the first one) and start with
  // `prefix`, all from one state.
  // REQUIRES: limit > 0.
  virtual absl::StatusOr<Page> List(std::string_view collection, std::string_view after,
                                    size_t limit, std::string_view prefix = {}) = 0;

  // Does all of it or nothing, durably: when this returns OK, a power cut loses none of it, and
  // every read that begins afterwards sees it. Steps are done in order; the revision of the last
  // one is returned. If a row is not as expected: ALREADY_EXISTS (expected none), NOT_FOUND (there
  // is none) or ABORTED (it has another revision). A name may occur more than once; steps see
  // earlier ones.
  // REQUIRES: at least one step; what is touched is in a collection that IsLogged().
  virtual absl::StatusOr<uint64_t> Commit(const std::vector<Mutation>& steps) = 0;

  // At most `limit` changes after revision `after`, oldest first. OUT_OF_RANGE if some of them were
  // trimmed, or if `after` lies in the future. That revisions lie between two changes means
  // nothing.
  virtual absl::StatusOr<std::vector<Change>> Changes(uint64_t after, size_t limit) = 0;

  // Forgets the changes up to and including `through` (at most the current revision).
  virtual absl::Status TrimChanges(uint64_t through) = 0;

  // Of the present state; 0 in a new store. Grows only, also over restarts and trims.
  virtual absl::StatusOr<uint64_t> Revision() = 0;

  // The smallest `after` for which Changes() still has everything: the last change that was
  // trimmed. It stays behind a trim of revisions of which nothing was logged.
  virtual absl::StatusOr<uint64_t> OldestRevision() = 0;

  // `listener` is called when something has been logged: once for each commit or for several at
  // once, by one thread at a time, with growing revisions. What it is told of is durable and
  // visible; the commits return after it. It may read the store, but must be quick, must not
  // commit, and must not wait for anybody who does. Set it once, before the store is shared.
  virtual void SetListener(Listener listener) = 0;

  // OK if the store answers.
  virtual absl::Status Ping() = 0;
};

}  // namespace gabion::service
