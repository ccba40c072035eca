#include "service/domain/live_job.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/base/text.h"
#include "google/protobuf/util/message_differencer.h"
#include "service/domain/identity.h"
#include "service/domain/operation_rows.h"
#include "service/errors.h"

namespace gabion::service {

using google::longrunning::Operation;

namespace {

bool Same(const LiveJob::Said& a, const LiveJob::Said& b) {
  using google::protobuf::util::MessageDifferencer;
  return MessageDifferencer::Equals(a.metadata, b.metadata) &&
         MessageDifferencer::Equals(a.stored, b.stored);
}

}  // namespace

absl::Status OperationDone(const std::string& name) {
  const std::string message = absl::StrCat(name, " is done.");
  return Error(reason::kOperationDone, message)
      .Metadata("operation", name)
      .Precondition(name, message);
}

LiveJob::LiveJob(MetadataStore& store, Operation operation, uint64_t revision,
                 store::v1::Job stored)
    : store_(store),
      name_(operation.name()),
      operation_(std::move(operation)),
      said_{MetadataOf(operation_), std::move(stored)},
      revision_(revision) {}

LiveJob::Said LiveJob::said() const {
  const std::lock_guard lock(mutex_);
  return said_;
}

Operation LiveJob::operation() const {
  const std::lock_guard lock(mutex_);
  return operation_.done() ? operation_ : Packed(said_.metadata);
}

bool LiveJob::done() const {
  const std::lock_guard lock(mutex_);
  return operation_.done();
}

void LiveJob::Note(Edit edit) {
  const std::lock_guard lock(mutex_);
  if (operation_.done()) return;
  const Said before = said_;
  edit(&said_);
  if (!Same(said_, before)) noted_ = true;
}

absl::Status LiveJob::Write() {
  const std::lock_guard lock(mutex_);
  if (!noted_ || operation_.done()) return absl::OkStatus();
  RETURN_IF_ERROR(WriteLocked(said_, {}));
  noted_ = false;
  return absl::OkStatus();
}

absl::StatusOr<Operation> LiveJob::Change(Edit edit, std::vector<Mutation> others) {
  const std::lock_guard lock(mutex_);
  RETURN_IF_ERROR(Done());
  Said changed = said_;
  edit(&changed);
  if (Same(changed, said_) && others.empty() && !noted_) return Packed(said_.metadata);
  RETURN_IF_ERROR(WriteLocked(changed, std::move(others)));
  said_ = std::move(changed);
  noted_ = false;
  return Packed(said_.metadata);
}

absl::StatusOr<Operation> LiveJob::Try(Edit edit) const {
  const std::lock_guard lock(mutex_);
  RETURN_IF_ERROR(Done());
  Said changed = said_;
  edit(&changed);
  return Packed(changed.metadata);
}

absl::Status LiveJob::End(std::vector<Mutation> steps,
                          const absl::StatusOr<google::protobuf::Any>& result) {
  const std::lock_guard lock(mutex_);
  if (operation_.done()) return absl::OkStatus();
  v1::JobMetadata metadata = said_.metadata;
  metadata.set_state(v1::JobMetadata::STATE_DONE);
  metadata.clear_last_transient_error();
  *metadata.mutable_end_time() = Now();
  Operation ended = Packed(metadata);
  SetResult(result, &ended);
  steps.push_back(Remove(kJobs, name_));
  const absl::Status committed = CommitLocked(std::move(steps), ended);
  if (operation_.done()) return absl::OkStatus();  // nobody else ends it
  RETURN_IF_ERROR(committed);
  operation_ = std::move(ended);
  said_.metadata = std::move(metadata);
  return absl::OkStatus();
}

Operation LiveJob::Packed(const v1::JobMetadata& metadata) const {
  Operation operation = operation_;
  operation.mutable_metadata()->PackFrom(metadata);
  return operation;
}

absl::Status LiveJob::Done() const {
  return operation_.done() ? OperationDone(name_) : absl::OkStatus();
}

absl::Status LiveJob::WriteLocked(const Said& said, std::vector<Mutation> steps) {
  steps.push_back(Put(kJobs, name_, said.stored.SerializeAsString()));
  return CommitLocked(std::move(steps), Packed(said.metadata));
}

absl::Status LiveJob::CommitLocked(std::vector<Mutation> steps, const Operation& operation) {
  // Last, so that the commit's revision is the row's.
  steps.push_back(Replace(kOperations, name_, operation.SerializeAsString(), revision_));
  const absl::StatusOr<uint64_t> written = store_.Commit(steps);
  if (written.ok()) {
    revision_ = *written;
  } else {
    ReloadLocked();
  }
  return written.status();
}

// A commit that failed may have been made all the same, if it was the answer that was lost.
void LiveJob::ReloadLocked() {
  const absl::StatusOr<Row> row = store_.Get(kOperations, name_);
  Operation stored;
  if (!row.ok() || !stored.ParseFromString(row->value)) return;
  revision_ = row->revision;
  if (stored.done()) operation_ = std::move(stored);
}

}  // namespace gabion::service
