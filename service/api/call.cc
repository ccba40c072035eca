#include "service/api/call.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "engine/base/text.h"
#include "google/longrunning/operations.pb.h"
#include "google/protobuf/field_mask.pb.h"
#include "service/domain/identity.h"
#include "service/validate.h"

namespace gabion::service {

using google::protobuf::Message;

namespace {

constexpr std::chrono::seconds kTryAgainAfter{1};

// A deadline of gRPC, which knows the clock on the wall only.
Patience::Clock::time_point PatientUntil(std::chrono::system_clock::time_point deadline) {
  const auto now = std::chrono::system_clock::now();
  auto wait = std::chrono::duration_cast<Patience::Clock::duration>(kLongestPatience);
  if (deadline < now + kLongestPatience + kAnswerBefore) {
    wait = std::chrono::duration_cast<Patience::Clock::duration>(deadline - now - kAnswerBefore);
  }
  return Patience::Clock::now() + wait;
}

}  // namespace

Calls::UnderWay::UnderWay(Calls& calls) : calls_(calls) {
  const std::lock_guard lock(calls_.mutex_);
  ++calls_.under_way_;
}

Calls::UnderWay::~UnderWay() {
  const std::lock_guard lock(calls_.mutex_);
  if (--calls_.under_way_ == 0) calls_.idle_.notify_all();
}

void Calls::Close(std::chrono::milliseconds longest) {
  closed_.store(true, std::memory_order_release);
  std::unique_lock lock(mutex_);
  idle_.wait_for(lock, longest, [this] { return under_way_ == 0; });
}

absl::Status Calls::Begin(Executor::Lane lane, Executor::Work work) {
  switch (executor_.Offer(lane, std::move(work))) {
    case Executor::Taken::kYes:
      return absl::OkStatus();
    case Executor::Taken::kStopped:
      return Draining();
    case Executor::Taken::kFull:
      break;
  }
  const std::string limit = absl::StrCat(executor_.longest_queue());
  return Error(reason::kRateLimited, absl::StrCat("There are ", limit, " calls waiting already."))
      .Metadata("limit", limit)
      .Quota("calls", "Make fewer calls at a time.")
      .RetryAfter(kTryAgainAfter);
}

absl::Status Calls::GoOn(Executor::Work work) {
  return executor_.Run(std::move(work)) ? absl::OkStatus() : Draining();
}

UnaryReactor::UnaryReactor(Calls& calls, std::chrono::system_clock::time_point deadline)
    : under_way_(calls), calls_(calls), until_(PatientUntil(deadline)) {}

// Also when the deadline has passed.
void UnaryReactor::OnCancel() {
  gone_.store(true, std::memory_order_release);
  calls_.requests().LookAgain();
}

grpc::Status Calls::Result(std::string_view method, const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  if (absl::IsAborted(status) && InfoOf(status).reason().empty()) {
    // By the store, and by nobody else: a row was written that the call had read.
    return ToGrpcStatus(Error(reason::kConcurrentUpdate,
                              "What the call is about was changed meanwhile; read it again."));
  }
  if (!absl::IsInternal(status) && !absl::IsUnknown(status)) return ToGrpcStatus(status);
  const std::string id = NewUid();
  logger_.Log(LogLevel::kError, "api",
              absl::StrCat(AsAbsl(method), " failed, id ", id, ": ", status.ToString()));
  return ToGrpcStatus(status, id);
}

absl::StatusOr<bool> Calls::Repeat(const Call& call, Message* response) {
  ASSIGN_OR_RETURN(const std::optional<store::v1::Request> earlier, requests_.Find(call));
  if (!earlier.has_value()) return false;
  switch (earlier->answer_case()) {
    case store::v1::Request::kResponse:
      if (earlier->response().UnpackTo(response)) return true;
      return absl::InternalError("A stored answer is of another type than its method's.");
    case store::v1::Request::kOperation: {
      const absl::StatusOr<google::longrunning::Operation> operation =
          operations_.Get(earlier->operation());
      if (operation.ok()) {
        response->CopyFrom(*operation);
        return true;
      }
      if (!absl::IsNotFound(operation.status())) return operation.status();
      ASSIGN_OR_RETURN(const auto deleted, requests_.Deleted(earlier->operation()));
      if (!deleted.has_value()) return operation.status();
      response->CopyFrom(*deleted);
      return true;
    }
    case store::v1::Request::ANSWER_NOT_SET:
      // Its outcome could not be written: what there is now decides.
      return false;
  }
  return false;
}

absl::Status Prepare(const Method& method, Message* request, Call* call) {
  RETURN_IF_ERROR(PrepareRequest(request));
  const google::protobuf::Reflection& r = *request->GetReflection();
  if (method.validate_only != nullptr) {
    call->validate_only = r.GetBool(*request, method.validate_only);
  }
  if (method.request_id == nullptr || call->validate_only) return absl::OkStatus();
  const std::string id = r.GetString(*request, method.request_id);
  if (id.empty()) return absl::OkStatus();
  call->request = absl::StrCat(method.name, "/", absl::AsciiStrToLower(id));
  call->fingerprint = FingerprintOf(method, *request);
  return absl::OkStatus();
}

absl::StatusOr<std::optional<ReadMask>> ReadMaskOf(const Method& method, const Message& request) {
  if (method.read_mask == nullptr) return std::optional<ReadMask>();
  google::protobuf::FieldMask mask;
  mask.CopyFrom(request.GetReflection()->GetMessage(request, method.read_mask));
  const google::protobuf::Descriptor* response = method.descriptor->output_type();
  const google::protobuf::FieldDescriptor* list = ResourcesField(*response);
  ASSIGN_OR_RETURN(ReadMask parsed,
                   ParseReadMask(list == nullptr ? response : list->message_type(), mask));
  return std::optional<ReadMask>(std::move(parsed));
}

void Trim(const ReadMask& mask, Message* response) {
  if (mask.keeps_all()) return;
  const google::protobuf::FieldDescriptor* list = ResourcesField(*response->GetDescriptor());
  if (list == nullptr) return mask.Trim(response);
  const google::protobuf::Reflection& r = *response->GetReflection();
  for (int i = 0; i < r.FieldSize(*response, list); ++i) {
    mask.Trim(r.MutableRepeatedMessage(response, list, i));
  }
}

}  // namespace gabion::service
