#include "service/errors.h"

#include <algorithm>
#include <initializer_list>
#include <optional>
#include <utility>

#include "absl/strings/cord.h"
#include "engine/base/reason.h"
#include "engine/base/text.h"
#include "service/names.h"
#include "service/text.h"

namespace gabion::service {
namespace {

// A trailer must stay below 8 KiB: the details travel in base64 (4/3), and the message a second
// time, percent-encoded (up to 3 bytes for one). 4400 * 4/3 + 600 * 3 = 7667.
constexpr size_t kMaxStatusBytes = 4400;
constexpr size_t kMaxMessageBytes = 600;
constexpr size_t kMaxTextBytes = 300;
constexpr size_t kMaxMetadataBytes = 600;
constexpr std::string_view kTypePrefix = "type.googleapis.com/";

std::string TypeUrl(const google::protobuf::Message& detail) {
  return std::string(kTypePrefix) + detail.GetDescriptor()->full_name();
}

void Attach(const google::protobuf::Message& detail, absl::Status* status) {
  if (detail.ByteSizeLong() == 0) return;
  status->SetPayload(AsAbsl(TypeUrl(detail)), absl::Cord(detail.SerializeAsString()));
}

template <typename Detail>
bool Extract(const std::map<std::string, std::string>& payloads, Detail* detail) {
  const auto found = payloads.find(TypeUrl(*detail));
  return found != payloads.end() && detail->ParseFromString(found->second);
}

// Takes list elements off the end until `excess` bytes are gone and puts one in their place that
// tells how many there were. Returns how many bytes are gone.
template <typename List, typename Say>
size_t CutList(size_t excess, List* list, Say say) {
  constexpr size_t kSayingSo = 100;
  size_t gone = 0;
  int count = 0;
  while (list->size() > 1 && gone < excess + kSayingSo) {
    gone += list->rbegin()->ByteSizeLong() + 3;
    list->RemoveLast();
    ++count;
  }
  if (count == 0) return 0;
  say(list->Add(), std::to_string(count) + " more left out");
  return gone - std::min(gone, kSayingSo);
}

using Payloads = std::map<std::string, std::string>;

size_t TotalBytes(const Payloads& payloads) {
  size_t total = 0;
  for (const auto& [type, value] : payloads) total += type.size() + value.size() + 12;
  return total;
}

template <typename Detail, typename Cut>
void CutDetail(size_t limit, Payloads* payloads, Cut cut) {
  const size_t total = TotalBytes(*payloads);
  Detail detail;
  if (total <= limit || !Extract(*payloads, &detail)) return;
  cut(total - limit, &detail);
  (*payloads)[TypeUrl(detail)] = detail.SerializeAsString();
}

// Makes the payloads fit: lists are cut first; then whole details go, ErrorInfo last of all.
void Fit(size_t limit, Payloads* payloads) {
  CutDetail<google::rpc::BadRequest>(limit, payloads, [](size_t excess, auto* detail) {
    CutList(excess, detail->mutable_field_violations(),
            [](auto* last, const std::string& text) { last->set_description(text); });
  });
  CutDetail<google::rpc::PreconditionFailure>(limit, payloads, [](size_t excess, auto* detail) {
    CutList(excess, detail->mutable_violations(),
            [](auto* last, const std::string& text) { last->set_description(text); });
  });
  CutDetail<google::rpc::QuotaFailure>(limit, payloads, [](size_t excess, auto* detail) {
    CutList(excess, detail->mutable_violations(),
            [](auto* last, const std::string& text) { last->set_description(text); });
  });
  const std::string info_type = TypeUrl(google::rpc::ErrorInfo());
  for (auto it = payloads->begin(); it != payloads->end() && TotalBytes(*payloads) > limit;) {
    it = it->first == info_type ? std::next(it) : payloads->erase(it);
  }
  CutDetail<google::rpc::ErrorInfo>(limit, payloads,
                                    [](size_t, auto* info) { info->clear_metadata(); });
}

Payloads PayloadsOf(const absl::Status& status) {
  Payloads payloads;  // a map, because the order of the visit is unspecified
  status.ForEachPayload([&](absl::string_view type, const absl::Cord& value) {
    if (AsStd(type).starts_with(kTypePrefix)) payloads[std::string(type)] = std::string(value);
  });
  return payloads;
}

bool IsOurDefect(absl::StatusCode code) {
  return code == absl::StatusCode::kInternal || code == absl::StatusCode::kUnknown;
}

template <typename Detail>
void Put(const Detail& detail, Payloads* payloads) {
  (*payloads)[TypeUrl(detail)] = detail.SerializeAsString();
}

template <typename Detail>
bool Has(const Payloads& payloads) {
  return payloads.contains(TypeUrl(Detail()));
}

// The value of the first of `keys` that the error has; empty if it has none.
std::string FactOf(const google::rpc::ErrorInfo& info, std::initializer_list<const char*> keys) {
  for (const char* key : keys) {
    const auto found = info.metadata().find(key);
    if (found != info.metadata().end()) return found->second;
  }
  return {};
}

// ErrorInfo as it was given; else from what the engine attached; else by the code alone.
google::rpc::ErrorInfo CompleteInfo(const absl::Status& status, absl::StatusCode code,
                                    Payloads* payloads) {
  google::rpc::ErrorInfo info;
  if (Extract(*payloads, &info) && !info.reason().empty()) return info;
  info.set_reason(std::string(FallbackReason(code)));
  info.set_domain(std::string(kErrorDomain));
  const std::optional<gabion::Reason> attached = ReasonOf(status);
  if (attached.has_value() && !IsOurDefect(code)) {
    info.set_reason(attached->reason);
    for (const auto& [key, value] : attached->metadata) {
      (*info.mutable_metadata())[key] = Printable(value, kMaxMetadataBytes);
    }
  }
  Put(info, payloads);
  return info;
}

// Adds the detail that belongs to the code, where nobody did.
void CompleteDetails(absl::StatusCode code, const google::rpc::ErrorInfo& info,
                     const std::string& message, Payloads* payloads) {
  const std::string text = Printable(message, kMaxTextBytes);
  const std::string subject = FactOf(info, {"resource", "image", "export", "pool"});
  using enum absl::StatusCode;
  if (code == kInvalidArgument && !Has<google::rpc::BadRequest>(*payloads)) {
    google::rpc::BadRequest detail;
    auto* violation = detail.add_field_violations();
    violation->set_field(FactOf(info, {"field"}));
    violation->set_description(text);
    violation->set_reason(info.reason());
    Put(detail, payloads);
  } else if (code == kFailedPrecondition && !Has<google::rpc::PreconditionFailure>(*payloads)) {
    google::rpc::PreconditionFailure detail;
    auto* violation = detail.add_violations();
    violation->set_type(info.reason());
    violation->set_subject(subject);
    violation->set_description(text);
    Put(detail, payloads);
  } else if (code == kResourceExhausted && !Has<google::rpc::QuotaFailure>(*payloads)) {
    google::rpc::QuotaFailure detail;
    auto* violation = detail.add_violations();
    violation->set_subject(subject);
    violation->set_description(text);
    Put(detail, payloads);
  } else if ((code == kNotFound || code == kAlreadyExists) &&
             !Has<google::rpc::ResourceInfo>(*payloads)) {
    google::rpc::ResourceInfo detail;
    detail.set_resource_type(std::string(TypeOfName(subject)));
    detail.set_resource_name(subject);
    detail.set_description(text);
    Put(detail, payloads);
  } else if ((code == kAborted || code == kUnavailable) &&
             info.reason() != reason::kEtagMismatch.name &&  // time does not help: reading does
             !Has<google::rpc::RetryInfo>(*payloads)) {
    google::rpc::RetryInfo detail;
    detail.mutable_retry_delay()->set_seconds(1);
    Put(detail, payloads);
  }
}

}  // namespace

Error::Error(const ErrorReason& reason, std::string_view message)
    : reason_(reason), message_(Printable(message, kMaxMessageBytes)) {
  info_.set_reason(std::string(reason.name));
  info_.set_domain(std::string(kErrorDomain));
}

Error& Error::Metadata(std::string_view key, std::string_view value) {
  (*info_.mutable_metadata())[std::string(key)] = Printable(value, kMaxMetadataBytes);
  return *this;
}

Error& Error::MetadataList(std::string_view key, const std::vector<std::string>& values) {
  std::string joined;
  size_t told = 0;
  for (; told < values.size(); ++told) {
    if (joined.size() + values[told].size() + 1 > kMaxMetadataBytes) break;
    if (told > 0) joined += ',';
    joined += values[told];
  }
  Metadata(key, joined);
  if (told < values.size()) {
    Metadata(std::string(key) + "-omitted", std::to_string(values.size() - told));
  }
  return *this;
}

Error& Error::Field(std::string_view path, std::string_view description) {
  return Field(path, description, reason_.name);
}

Error& Error::Field(std::string_view path, std::string_view description, std::string_view reason) {
  auto* violation = bad_request_.add_field_violations();
  violation->set_field(Printable(path, kMaxTextBytes));
  violation->set_description(Printable(description, kMaxTextBytes));
  violation->set_reason(std::string(reason));
  if (bad_request_.field_violations_size() == 1) Metadata("field", path);
  return *this;
}

Error& Error::Precondition(std::string_view subject, std::string_view description) {
  auto* violation = precondition_.add_violations();
  violation->set_type(std::string(reason_.name));
  violation->set_subject(Printable(subject, kMaxTextBytes));
  violation->set_description(Printable(description, kMaxTextBytes));
  return *this;
}

Error& Error::Quota(std::string_view subject, std::string_view description) {
  auto* violation = quota_.add_violations();
  violation->set_subject(Printable(subject, kMaxTextBytes));
  violation->set_description(Printable(description, kMaxTextBytes));
  return *this;
}

Error& Error::Resource(std::string_view type, std::string_view name) {
  resource_.set_resource_type(std::string(type));
  resource_.set_resource_name(Printable(name, kMaxTextBytes));
  resource_.set_description(message_);
  return *this;
}

Error& Error::RetryAfter(std::chrono::milliseconds delay) {
  retry_.mutable_retry_delay()->set_seconds(delay.count() / 1000);
  retry_.mutable_retry_delay()->set_nanos(static_cast<int32_t>(delay.count() % 1000) * 1000000);
  return *this;
}

absl::Status Error::Build() const {
  absl::Status status(reason_.code, AsAbsl(message_));
  for (const google::protobuf::Message* detail :
       std::initializer_list<const google::protobuf::Message*>{
           &info_, &bad_request_, &precondition_, &quota_, &resource_, &retry_}) {
    Attach(*detail, &status);
  }
  return status;
}

absl::Status NotFound(std::string_view type, std::string_view name, std::string_view field) {
  Error error(reason::kResourceNotFound, "There is no " + std::string(name) + ".");
  error.Resource(type, name);
  if (!field.empty()) error.Metadata("field", field);
  return error;
}

absl::Status AlreadyExists(const ErrorReason& reason, std::string_view type,
                           std::string_view name) {
  return Error(reason, std::string(name) + " exists already.").Resource(type, name);
}

absl::Status Draining() {
  return Error(reason::kDraining, "The daemon is about to end and changes nothing any more.");
}

absl::Status WithMetadata(absl::Status status, const std::map<std::string, std::string>& facts) {
  google::rpc::ErrorInfo info;
  if (!Extract(PayloadsOf(status), &info)) return status;
  for (const auto& [key, value] : facts) {
    (*info.mutable_metadata())[key] = Printable(value, kMaxMetadataBytes);
  }
  Attach(info, &status);
  return status;
}

google::rpc::ErrorInfo InfoOf(const absl::Status& status) {
  google::rpc::ErrorInfo info;
  Extract(PayloadsOf(status), &info);
  return info;
}

google::rpc::Status ToRpcStatus(const absl::Status& status, std::string_view request_id) {
  google::rpc::Status wire;
  if (status.ok()) return wire;
  Payloads payloads = PayloadsOf(status);
  absl::StatusCode code = status.code();
  std::string message = Printable(AsStd(status.message()), kMaxMessageBytes);
  if (IsOurDefect(code)) {
    code = absl::StatusCode::kInternal;
    payloads.clear();
    message = "Internal error; the daemon's log has the cause";
    if (!request_id.empty()) {
      google::rpc::RequestInfo request;
      request.set_request_id(Printable(request_id, kMaxTextBytes));
      payloads[TypeUrl(request)] = request.SerializeAsString();
      message += " under request id " + request.request_id();
    }
    message += '.';
  }
  const google::rpc::ErrorInfo info = CompleteInfo(status, code, &payloads);
  CompleteDetails(code, info, message, &payloads);
  Fit(kMaxStatusBytes - message.size(), &payloads);
  wire.set_code(static_cast<int>(code));
  wire.set_message(std::move(message));
  for (auto& [type, value] : payloads) {
    google::protobuf::Any* detail = wire.add_details();
    detail->set_type_url(type);
    detail->set_value(std::move(value));
  }
  return wire;
}

grpc::Status ToGrpcStatus(const absl::Status& status, std::string_view request_id) {
  if (status.ok()) return grpc::Status::OK;
  const google::rpc::Status wire = ToRpcStatus(status, request_id);
  return {static_cast<grpc::StatusCode>(wire.code()), wire.message(), wire.SerializeAsString()};
}

absl::Status FromRpcStatus(const google::rpc::Status& status) {
  absl::Status read(static_cast<absl::StatusCode>(status.code()), AsAbsl(status.message()));
  if (read.ok()) return read;
  for (const google::protobuf::Any& detail : status.details()) {
    read.SetPayload(AsAbsl(detail.type_url()), absl::Cord(detail.value()));
  }
  return read;
}

absl::Status FromGrpcStatus(const grpc::Status& status) {
  google::rpc::Status wire;
  if (!wire.ParseFromString(status.error_details())) wire.Clear();
  // The trailer may come from anybody: code and message are those of the call.
  wire.set_code(static_cast<int>(status.error_code()));
  wire.set_message(status.error_message());
  return FromRpcStatus(wire);
}

}  // namespace gabion::service
