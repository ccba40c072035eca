// Calls that carried a request_id: what they were answered, so that the same call again has no
// second effect [AIP-155].
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gabion/store/v1/records.pb.h"
#include "google/longrunning/operations.pb.h"
#include "google/protobuf/message.h"
#include "service/domain/call.h"
#include "service/domain/resource_locks.h"
#include "service/store/metadata_store.h"

namespace gabion::service {

// The log is written in the transactions of the effects themselves: with the intent as a request
// without an answer, with the outcome as one with an answer; an effect that is taken back takes the
// entry with it. So after a restart an entry says what the recovered effect says. Owned by the
// domain; any thread of the executor, which blocks.
class RequestLog {
 public:
  // Both outlive this.
  RequestLog(MetadataStore& store, ResourceLocks& locks) : store_(store), locks_(locks) {}

  // Waits until no other call with this request id is under way, and keeps others waiting. Taken
  // before every lock of a resource. ABORTED OPERATION_IN_PROGRESS if that takes too long for the
  // call. REQUIRES: call.request is not empty.
  absl::StatusOr<ResourceLocks::Guard> Enter(const Call& call);
  // Some caller has gone: calls that wait for others look whether it is theirs.
  void LookAgain() { locks_.LookAgain(); }

  // What was written of an earlier call with this id; nothing if there was none. INVALID_ARGUMENT
  // REQUEST_ID_REUSED if that was another request.
  absl::StatusOr<std::optional<store::v1::Request>> Find(const Call& call) const;

  // Adds to `steps` that the call's effect is about to be made. Nothing for a call without id.
  static void Begin(const Call& call, std::vector<Mutation>* steps);
  // Adds that the call is answered by this operation, for good.
  static void BeginOperation(const Call& call, std::string_view operation,
                             std::vector<Mutation>* steps);
  // Adds that the call had its effect in this same transaction, and its answer.
  static void BeginAnswered(const Call& call, const google::protobuf::Message& response,
                            std::vector<Mutation>* steps);

  // Adds that this operation, which is done and is deleted in this same transaction, is still the
  // answer of the calls that it answered. As long as any of them is remembered, it is, too.
  static void KeepDeleted(const google::longrunning::Operation& operation,
                          std::vector<Mutation>* steps);
  // One of these as it ended; nothing if it is not known.
  absl::StatusOr<std::optional<google::longrunning::Operation>> Deleted(
      const std::string& operation) const;

  // Adds the answer of a request that Begin() wrote earlier; nothing if `request` is empty.
  absl::Status Answer(const std::string& request, const google::protobuf::Message& response,
                      std::vector<Mutation>* steps) const;
  // Adds that the effect of a request that Begin() wrote has been taken back; nothing if `request`
  // is empty.
  absl::Status Forget(const std::string& request, std::vector<Mutation>* steps) const;

  // Forgets what is older than `age`. In pieces, so that nobody waits long.
  absl::Status Expire(std::chrono::seconds age);

 private:
  MetadataStore& store_;
  ResourceLocks& locks_;
};

}  // namespace gabion::service
