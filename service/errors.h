// The one place where errors of the control plane are built, and where they turn into what travels.
// Inside they are absl::Status with google.rpc detail messages as payloads; outside they are
// grpc::Status with a serialized google.rpc.Status as details.
#pragma once

#include <chrono>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpcpp/support/status.h"
#include "service/reasons.h"

namespace gabion::service {

// Builds one error: reason (which decides the code), message, and the details that belong to the
// code. Every error gets ErrorInfo; ABORTED and UNAVAILABLE also get RetryInfo, of a second unless
// RetryAfter() says another time, but for ETAG_MISMATCH: the same call fails again at any time.
// Long texts are cut (see the limits in errors.cc). Any thread.
//
//   return Error(reason::kImageInUse, "images/a is served by exports/e")
//       .Metadata("image", "images/a")
//       .Precondition("images/a", "Delete exports/e first.");
class Error {
 public:
  // `message`: one sentence for people.
  Error(const ErrorReason& reason, std::string_view message);

  // A fact in ErrorInfo.metadata. `key`: [a-z][a-zA-Z0-9-_]+, at most 64 characters.
  Error& Metadata(std::string_view key, std::string_view value);
  // Several names as one fact, joined by commas; what does not fit is counted in `key`-omitted.
  Error& MetadataList(std::string_view key, const std::vector<std::string>& values);

  // A field at fault (BadRequest), by the reason given or else the error's own. The first one is
  // also told in metadata as `field`. See google/rpc/error_details.proto for how paths are written.
  Error& Field(std::string_view path, std::string_view description);
  Error& Field(std::string_view path, std::string_view description, std::string_view reason);
  // A state in the way (PreconditionFailure).
  Error& Precondition(std::string_view subject, std::string_view description);
  // A limit that is reached (QuotaFailure).
  Error& Quota(std::string_view subject, std::string_view description);
  // The resource that it is about (ResourceInfo), e.g. "gabion/Image", "images/a".
  Error& Resource(std::string_view type, std::string_view name);
  Error& RetryAfter(std::chrono::milliseconds delay);

  absl::Status Build() const;
  operator absl::Status() const { return Build(); }  // NOLINT: so that it can be returned

 private:
  ErrorReason reason_;
  std::string message_;
  google::rpc::ErrorInfo info_;
  google::rpc::BadRequest bad_request_;
  google::rpc::PreconditionFailure precondition_;
  google::rpc::QuotaFailure quota_;
  google::rpc::ResourceInfo resource_;
  google::rpc::RetryInfo retry_;
};

// NOT_FOUND RESOURCE_NOT_FOUND. `field`: where the request names it; empty if it is what the
// request is about.
absl::Status NotFound(std::string_view type, std::string_view name, std::string_view field = {});

// ALREADY_EXISTS by `reason`.
absl::Status AlreadyExists(const ErrorReason& reason, std::string_view type, std::string_view name);

// UNAVAILABLE DRAINING: the daemon is about to end.
absl::Status Draining();

// `status` with these facts, too, in ErrorInfo.metadata; without ErrorInfo it stays as it is.
absl::Status WithMetadata(absl::Status status, const std::map<std::string, std::string>& facts);

// ErrorInfo of an error; empty if it has none.
google::rpc::ErrorInfo InfoOf(const absl::Status& status);

// The same error as google.rpc.Status: details sorted by type, at most one of each, and all of it
// small enough for the metadata limit of gRPC peers; lists that had to be cut say how much was left
// out. Details that are missing are added: ErrorInfo from the reason that the engine attached
// (engine/base/reason.h) or else by the code, and what belongs to the code (BadRequest,
// PreconditionFailure, QuotaFailure, ResourceInfo, RetryInfo) from message and metadata.
// INTERNAL and UNKNOWN are a defect of ours: their message and details stay here, and the caller
// gets `request_id` to show to the operator, who finds the rest in the log.
google::rpc::Status ToRpcStatus(const absl::Status& status, std::string_view request_id = {});

// What a gRPC handler finishes with.
grpc::Status ToGrpcStatus(const absl::Status& status, std::string_view request_id = {});

// The other way round, for clients and for errors that were stored.
absl::Status FromRpcStatus(const google::rpc::Status& status);
absl::Status FromGrpcStatus(const grpc::Status& status);

}  // namespace gabion::service
