#include "service/domain/engine_errors.h"

#include <map>
#include <optional>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "engine/base/reason.h"
#include "engine/base/text.h"
#include "service/errors.h"
#include "service/names.h"

namespace gabion::service {
namespace {

// Messages of the engine name no paths but those below a pool; still they are cut and made
// printable by Error.
std::string_view Message(const absl::Status& status) { return AsStd(status.message()); }

// Where the request has the parameter of a filter that the engine names relative to its spec.
std::string FilterField(const std::string& index, std::string_view engine_field,
                        const EngineCall& call) {
  std::size_t at = 0;
  if (!absl::SimpleAtoi(index, &at) || at >= call.filter_fields.size())
    return "export.filter_stack";
  const std::string& field = call.filter_fields[at];
  if (!field.ends_with(".spec") || engine_field.empty()) return field;
  return absl::StrCat(field, ".", AsAbsl(engine_field));
}

// The field that is at fault: as the reason says by its nature, else as the engine says.
std::string FieldOf(const ErrorReason& reason, std::string_view engine_field,
                    const EngineCall& call) {
  static const std::map<std::string_view, std::string EngineCall::*>* const kFields =
      new std::map<std::string_view, std::string EngineCall::*>{
          {reason::kShrinkNotAllowed.name, &EngineCall::size_field},
          {reason::kSizeOutOfRange.name, &EngineCall::size_field},
          {reason::kSizeMismatch.name, &EngineCall::size_field},
          {reason::kPathOutsidePool.name, &EngineCall::file_field},
          {reason::kFormatMismatch.name, &EngineCall::file_field},
          {reason::kFieldInvalid.name, &EngineCall::file_field},
          {reason::kOffsetBeyondEnd.name, &EngineCall::offset_field},
      };
  if (!engine_field.empty() && engine_field == call.file_field) return call.file_field;
  if (engine_field.starts_with("image.")) return std::string(engine_field);
  const auto found = kFields->find(reason.name);
  if (found != kFields->end() && !(call.*(found->second)).empty()) return call.*(found->second);
  if (reason.name.starts_with("BLOCK_SIZE_")) {
    return absl::StrCat("export.block_sizes.",
                        engine_field.empty() ? "minimum_bytes" : AsAbsl(engine_field));
  }
  if (reason.name == reason::kSizeNotMultipleOfMinimum.name) return "export.block_sizes.tail";
  return std::string(engine_field);
}

// What the error is about, for ResourceInfo.
void AddResource(const std::string& engine_resource, const EngineCall& call, Error& error) {
  if (!call.file_field.empty()) {
    error.Resource("file", {});
  } else if (!engine_resource.empty()) {
    error.Resource(TypeOfName(engine_resource), engine_resource);
  } else if (!call.image.empty()) {
    error.Resource("gabion/Image", call.image);
  } else {
    error.Resource("gabion/Export", call.export_name);
  }
}

void AddDetails(const ErrorReason& reason, std::string_view message,
                const std::map<std::string, std::string>& metadata, const EngineCall& call,
                Error& error) {
  const auto get = [&](const char* key) {
    const auto found = metadata.find(key);
    return found == metadata.end() ? std::string() : found->second;
  };
  for (const auto& [key, value] : metadata) {
    if (key != "field" && key != "resource") error.Metadata(key, value);
  }
  const std::string field = reason.name == reason::kFilterParametersInvalid.name
                                ? FilterField(get("index"), get("field"), call)
                                : FieldOf(reason, get("field"), call);
  if (!field.empty()) error.Field(field, message);
  // What is wrong with the file that a request names says nothing of the image that it is to make.
  const bool about_source = !field.empty() && field == call.file_field;
  const bool about_image = reason.name.starts_with("IMAGE_") && !about_source;
  if (about_image && get("image").empty()) error.Metadata("image", call.image);
  const bool about_export = reason.name.starts_with("EXPORT_") ||
                            reason.name == reason::kStackIncompatible.name ||
                            reason.name == reason::kQuiesceTimeout.name;
  if (about_export && get("export").empty()) {
    error.Metadata("export", call.export_name);
  }
  switch (reason.code) {
    case absl::StatusCode::kFailedPrecondition:
      error.Precondition(about_source                              ? field
                         : about_image || call.export_name.empty() ? call.image
                                                                   : call.export_name,
                         message);
      break;
    case absl::StatusCode::kResourceExhausted:
      error.Quota(reason.name == reason::kPoolFull.name ? call.pool : call.export_name, message);
      break;
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kNotFound:
      AddResource(get("resource"), call, error);
      break;
    default:
      break;
  }
}

// The reason of an error to which the engine gave none.
std::optional<ErrorReason> ReasonOfCode(absl::StatusCode code, const EngineCall& call) {
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
    case absl::StatusCode::kInvalidArgument:
      if (!call.file_field.empty()) return reason::kFieldInvalid;
      return std::nullopt;
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
  const ErrorReason* known = given.has_value() ? FindReason(given->reason) : nullptr;
  std::optional<ErrorReason> reason;
  if (known != nullptr) {
    reason = *known;
  } else {
    reason = ReasonOfCode(status.code(), call);
  }
  if (!reason.has_value()) return status;

  Error error(*reason, Message(status));
  std::map<std::string, std::string> metadata;
  if (given.has_value()) metadata.insert(given->metadata.begin(), given->metadata.end());
  EngineCall about = call;
  // A file that is missing is the one that the request names; one that is there already is the
  // image's own.
  const bool exists = reason->code == absl::StatusCode::kAlreadyExists;
  if (exists) about.file_field.clear();
  if (reason->code == absl::StatusCode::kNotFound && !about.file_field.empty()) {
    metadata.emplace("field", about.file_field);
  }
  AddDetails(*reason, Message(status), metadata, about, error);
  return error;
}

}  // namespace gabion::service
