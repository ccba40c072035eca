#include "service/domain/engine_errors.h"

#include <map>
#include <optional>
#include <utility>

#include "engine/base/reason.h"
#include "engine/base/text.h"
#include "service/errors.h"

namespace gabion::service {
namespace {

// Messages of the engine name no paths but those below a pool; still they are cut and made
// printable by Error.
std::string_view Message(const absl::Status& status) { return AsStd(status.message()); }

// The field that is at fault by the nature of the reason.
std::string FieldOf(const Reason& reason, const EngineCall& call) {
  static const std::map<std::string_view, std::string EngineCall::*>* const kFields =
      new std::map<std::string_view, std::string EngineCall::*>{
          {reason::kShrinkNotAllowed.name, &EngineCall::size_field},
          {reason::kSizeOutOfRange.name, &EngineCall::size_field},
          {reason::kSizeMismatch.name, &EngineCall::size_field},
          {reason::kPathOutsidePool.name, &EngineCall::file_field},
          {reason::kFormatMismatch.name, &EngineCall::file_field},
          {reason::kOffsetBeyondEnd.name, &EngineCall::offset_field},
      };
  const auto found = kFields->find(reason.name);
  if (found != kFields->end()) return call.*(found->second);
  if (call.export_name.empty()) return {};
  if (reason.name == reason::kBlockSizeBelowStorage.name ||
      reason.name == reason::kBlockSizeNotPowerOfTwo.name ||
      reason.name == reason::kBlockSizeOutOfRange.name ||
      reason.name == reason::kBlockSizeOrder.name) {
    return "export.block_sizes.minimum_bytes";
  }
  if (reason.name == reason::kSizeNotMultipleOfMinimum.name) return "export.block_sizes.tail";
  return {};
}

void AddDetails(const Reason& reason, std::string_view message, const EngineCall& call,
                Error& error) {
  const std::string field = FieldOf(reason, call);
  if (!field.empty()) error.Field(field, message);
  const bool about_image = call.export_name.empty() || reason.name.starts_with("IMAGE_");
  if (reason.code == absl::StatusCode::kFailedPrecondition) {
    error.Precondition(about_image ? call.image : call.export_name, message);
  }
  if (reason.code == absl::StatusCode::kResourceExhausted) {
    error.Quota(reason.name == reason::kPoolFull.name ? call.pool : call.export_name, message);
  }
  if (reason.name.starts_with("IMAGE_")) error.Metadata("image", call.image);
  if (reason.name.starts_with("EXPORT_")) error.Metadata("export", call.export_name);
}

// The reason of an error to which the engine gave none.
std::optional<Reason> ReasonOfCode(absl::StatusCode code, const EngineCall& call) {
  switch (code) {
    case absl::StatusCode::kAlreadyExists:
      return reason::kResourceExists;
    case absl::StatusCode::kNotFound:
      return reason::kResourceNotFound;
    case absl::StatusCode::kResourceExhausted:
      if (!call.size_field.empty()) return reason::kPoolFull;
      return std::nullopt;
    case absl::StatusCode::kOutOfRange:
      return call.size_field.empty() ? reason::kOffsetBeyondEnd : reason::kSizeOutOfRange;
    case absl::StatusCode::kPermissionDenied:
      if (!call.file_field.empty()) return reason::kPathOutsidePool;
      if (!call.offset_field.empty()) return reason::kExportReadOnly;
      return std::nullopt;
    default:
      return std::nullopt;
  }
}

}  // namespace

absl::Status FromEngine(const absl::Status& status, const EngineCall& call) {
  if (status.ok() || !InfoOf(status).reason().empty()) return status;
  const std::optional<::gabion::Reason> given = ReasonOf(status);
  const Reason* known = given.has_value() ? FindReason(given->reason) : nullptr;
  std::optional<Reason> reason;
  if (known != nullptr) {
    reason = *known;
  } else {
    reason = ReasonOfCode(status.code(), call);
  }
  if (!reason.has_value()) return status;

  Error error(*reason, Message(status));
  if (given.has_value()) {
    for (const auto& [key, value] : given->metadata) error.Metadata(key, value);
  }
  AddDetails(*reason, Message(status), call, error);
  if (reason->code == absl::StatusCode::kNotFound ||
      reason->code == absl::StatusCode::kAlreadyExists) {
    if (!call.file_field.empty() && reason->code == absl::StatusCode::kNotFound) {
      error.Field(call.file_field, Message(status)).Resource("file", {});
    } else if (!call.export_name.empty()) {
      error.Resource("gabion/Export", call.export_name);
    } else {
      error.Resource("gabion/Image", call.image);
    }
  }
  return error;
}

}  // namespace gabion::service
