#include "service/domain/request_log.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/base/status_macros.h"
#include "engine/base/text.h"
#include "service/domain/identity.h"
#include "service/errors.h"

namespace gabion::service {
namespace {

constexpr std::string_view kRequests = "requests";
// One row for each request, named so that the oldest comes first; its value is the request's name.
constexpr std::string_view kExpiries = "expiries";
constexpr size_t kPiece = 256;

std::string ExpiryName(int64_t seconds, std::string_view request) {
  return absl::StrCat(absl::StrFormat("%020d", seconds), "/", AsAbsl(request));
}

absl::StatusOr<store::v1::Request> Parse(const Row& row) {
  store::v1::Request request;
  if (!request.ParseFromString(row.value)) {
    return absl::DataLossError(absl::StrCat("The stored row of ", row.name, " is damaged."));
  }
  return request;
}

void AddEntry(const std::string& name, store::v1::Request request, std::vector<Mutation>* steps) {
  *request.mutable_create_time() = Now();
  // An entry whose effect was neither written nor taken back may be there: it is replaced.
  steps->push_back(Put(kExpiries, ExpiryName(request.create_time().seconds(), name), name));
  steps->push_back(Put(kRequests, name, request.SerializeAsString()));
}

void AddRequest(const Call& call, store::v1::Request request, std::vector<Mutation>* steps) {
  if (call.request.empty()) return;
  request.set_fingerprint(call.fingerprint);
  AddEntry(call.request, std::move(request), steps);
}

// Adds the removal of what `expiry` names, if it is still the same request and has its answer:
// one without belongs to an effect that is under way.
absl::Status AddRemoval(MetadataStore& store, const Row& expiry, std::vector<Mutation>* steps) {
  const absl::StatusOr<Row> row = store.Get(kRequests, expiry.value);
  if (row.ok()) {
    ASSIGN_OR_RETURN(const store::v1::Request request, Parse(*row));
    const bool same = ExpiryName(request.create_time().seconds(), expiry.value) == expiry.name;
    if (same && request.answer_case() == store::v1::Request::ANSWER_NOT_SET) {
      return absl::OkStatus();
    }
    if (same) steps->push_back(Remove(kRequests, row->name, row->revision));
  } else if (!absl::IsNotFound(row.status())) {
    return row.status();
  }
  steps->push_back(Remove(kExpiries, expiry.name, expiry.revision));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ResourceLocks::Guard> RequestLog::Enter(const Call& call) {
  absl::StatusOr<ResourceLocks::Guard> guard =
      locks_.LockFor(call.patience, {"requests/" + call.request});
  if (!absl::IsAborted(guard.status())) return guard;
  return Error(reason::kOperationInProgress, "Another call with this request_id is under way.")
      .Build();
}

absl::StatusOr<std::optional<store::v1::Request>> RequestLog::Find(const Call& call) const {
  const absl::StatusOr<Row> row = store_.Get(kRequests, call.request);
  if (absl::IsNotFound(row.status())) return std::optional<store::v1::Request>();
  if (!row.ok()) return row.status();
  ASSIGN_OR_RETURN(store::v1::Request request, Parse(*row));
  if (request.fingerprint() != call.fingerprint) {
    constexpr std::string_view kMessage =
        "An earlier call with this request_id asked for something else.";
    return Error(reason::kRequestIdReused, kMessage).Field("request_id", kMessage).Build();
  }
  return std::optional<store::v1::Request>(std::move(request));
}

void RequestLog::Begin(const Call& call, std::vector<Mutation>* steps) {
  AddRequest(call, {}, steps);
}

void RequestLog::BeginOperation(const Call& call, std::string_view operation,
                                std::vector<Mutation>* steps) {
  store::v1::Request request;
  request.set_operation(std::string(operation));
  AddRequest(call, std::move(request), steps);
}

void RequestLog::BeginAnswered(const Call& call, const google::protobuf::Message& response,
                               std::vector<Mutation>* steps) {
  store::v1::Request request;
  request.mutable_response()->PackFrom(response);
  AddRequest(call, std::move(request), steps);
}

// Beside the requests, under the operation's own name, which no request has. Requests that it
// answers are older than its deletion, so that they are forgotten before it.
void RequestLog::KeepDeleted(const google::longrunning::Operation& operation,
                             std::vector<Mutation>* steps) {
  store::v1::Request kept;
  kept.mutable_response()->PackFrom(operation);
  AddEntry(operation.name(), std::move(kept), steps);
}

absl::StatusOr<std::optional<google::longrunning::Operation>> RequestLog::Deleted(
    const std::string& operation) const {
  std::optional<google::longrunning::Operation> deleted;
  const absl::StatusOr<Row> row = store_.Get(kRequests, operation);
  if (absl::IsNotFound(row.status())) return deleted;
  if (!row.ok()) return row.status();
  ASSIGN_OR_RETURN(const store::v1::Request kept, Parse(*row));
  if (!kept.response().UnpackTo(&deleted.emplace())) {
    return absl::DataLossError(absl::StrCat("What is kept of ", operation, " is damaged."));
  }
  return deleted;
}

absl::Status RequestLog::Answer(const std::string& request,
                                const google::protobuf::Message& response,
                                std::vector<Mutation>* steps) const {
  if (request.empty()) return absl::OkStatus();
  const absl::StatusOr<Row> row = store_.Get(kRequests, request);
  if (absl::IsNotFound(row.status())) return absl::OkStatus();  // forgotten: nobody asks any more
  if (!row.ok()) return row.status();
  ASSIGN_OR_RETURN(store::v1::Request stored, Parse(*row));
  stored.mutable_response()->PackFrom(response);
  steps->push_back(Replace(kRequests, request, stored.SerializeAsString(), row->revision));
  return absl::OkStatus();
}

absl::Status RequestLog::Forget(const std::string& request, std::vector<Mutation>* steps) const {
  if (request.empty()) return absl::OkStatus();
  const absl::StatusOr<Row> row = store_.Get(kRequests, request);
  if (absl::IsNotFound(row.status())) return absl::OkStatus();  // taken back already
  if (!row.ok()) return row.status();
  ASSIGN_OR_RETURN(const store::v1::Request stored, Parse(*row));
  const std::string expiry = ExpiryName(stored.create_time().seconds(), request);
  const absl::StatusOr<Row> expiry_row = store_.Get(kExpiries, expiry);
  if (expiry_row.ok()) {
    steps->push_back(Remove(kExpiries, expiry, expiry_row->revision));
  } else if (!absl::IsNotFound(expiry_row.status())) {
    return expiry_row.status();
  }
  steps->push_back(Remove(kRequests, request, row->revision));
  return absl::OkStatus();
}

absl::Status RequestLog::Expire(std::chrono::seconds age) {
  const std::string young = ExpiryName(Now().seconds() - age.count(), "");
  std::string after;
  for (bool more = true; more;) {
    ASSIGN_OR_RETURN(const Page page, store_.List(kExpiries, after, kPiece));
    std::vector<Mutation> steps;
    more = page.more;
    for (const Row& row : page.rows) {
      if (row.name >= young) {
        more = false;
        break;
      }
      after = row.name;
      RETURN_IF_ERROR(AddRemoval(store_, row, &steps));
    }
    if (!steps.empty()) RETURN_IF_ERROR(store_.Commit(steps).status());
  }
  return absl::OkStatus();
}

}  // namespace gabion::service
