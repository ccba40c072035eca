// The rows of an operation that is not done: what they say, and the order in which they are
// written.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gabion/store/v1/records.pb.h"
#include "gabion/v1/job.pb.h"
#include "google/longrunning/operations.pb.h"
#include "google/protobuf/any.pb.h"
#include "service/store/metadata_store.h"

namespace gabion::service {

// Nobody else writes these rows. Owned by the operation manager; any thread, which blocks.
class LiveJob {
 public:
  // What the rows say of the work.
  struct Said {
    v1::JobMetadata metadata;
    store::v1::Job stored;
  };
  using Edit = absl::FunctionRef<void(Said*)>;

  // The rows as they were read, `revision` that of the operation's.
  LiveJob(MetadataStore& store, google::longrunning::Operation operation, uint64_t revision,
          store::v1::Job stored);

  const std::string& name() const { return name_; }
  bool done() const;
  Said said() const;
  // With what is not written yet.
  google::longrunning::Operation operation() const;

  // Changes what is said; it is written by the next call that writes. Nothing once it is done.
  void Note(Edit edit);
  // Writes what has been noted; nothing if there is nothing.
  absl::Status Write();
  // Changes what is said, with `others` in the same transaction; on error nothing has changed.
  // FAILED_PRECONDITION OPERATION_DONE.
  absl::StatusOr<google::longrunning::Operation> Change(Edit edit, std::vector<Mutation> others);
  // What Change() would return, changing nothing.
  absl::StatusOr<google::longrunning::Operation> Try(Edit edit) const;

  // Writes `steps`, that the operation is done, and that there is no job any more, in one
  // transaction. `result`: the response, or the error. OK if that has been done already, also if it
  // was only the answer of the commit that was lost.
  absl::Status End(std::vector<Mutation> steps,
                   const absl::StatusOr<google::protobuf::Any>& result);

 private:
  google::longrunning::Operation Packed(const v1::JobMetadata& metadata) const;
  absl::Status Done() const;
  absl::Status CommitLocked(std::vector<Mutation> steps,
                            const google::longrunning::Operation& operation);
  absl::Status WriteLocked(const Said& said, std::vector<Mutation> steps);
  void ReloadLocked();

  MetadataStore& store_;
  const std::string name_;
  mutable std::mutex mutex_;
  google::longrunning::Operation operation_;  // its metadata is old unless it is done
  Said said_;
  bool noted_ = false;  // and not written
  uint64_t revision_;
};

// OPERATION_DONE.
absl::Status OperationDone(const std::string& name);

}  // namespace gabion::service
