#include "service/api/call.h"

#include "absl/strings/str_cat.h"
#include "engine/base/text.h"
#include "service/domain/identity.h"
#include "service/validate.h"

namespace gabion::service {

grpc::Status Calls::Result(std::string_view method, const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  if (!absl::IsInternal(status) && !absl::IsUnknown(status)) return ToGrpcStatus(status);
  const std::string id = NewUid();
  logger_.Log(LogLevel::kError, "api",
              absl::StrCat(AsAbsl(method), " failed, id ", id, ": ", status.ToString()));
  return ToGrpcStatus(status, id);
}

absl::Status Prepare(google::protobuf::Message* request) { return PrepareRequest(request); }

}  // namespace gabion::service
