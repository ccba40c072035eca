#include "engine/image_owner.h"

#include <errno.h>
#include <sys/stat.h>

#include <optional>

#include "absl/strings/str_cat.h"
#include "engine/base/reason.h"
#include "engine/base/status_macros.h"
#include "engine/base/text.h"
#include "engine/io/errno_status.h"
#include "engine/io/unique_fd.h"

namespace gabion::engine {
namespace {

constexpr std::string_view kUnfinished = ".unfinished";
constexpr std::string_view kRemoved = ".removed";

}  // namespace

std::string UnfinishedName(const ImageSpec& spec) {
  return absl::StrCat(".", spec.uid, AsAbsl(kUnfinished));
}

std::string RemovedName(const ImageSpec& spec) {
  return absl::StrCat(".", spec.uid, AsAbsl(kRemoved));
}

std::string_view UidOfWorkName(std::string_view name) {
  for (const std::string_view suffix : {kUnfinished, kRemoved}) {
    if (!name.starts_with('.') || !name.ends_with(suffix)) continue;
    if (name.size() <= suffix.size() + 1) continue;
    return name.substr(1, name.size() - suffix.size() - 1);
  }
  return {};
}

absl::Status ReasonFor(const absl::Status& status, const ImageSpec& spec) {
  if (status.ok()) return status;
  const bool named = AsStd(status.message()).starts_with(spec.name + ": ");
  absl::Status annotated = named ? status : Annotate(status, spec.name);
  const std::optional<Reason> reason = ReasonOf(annotated);
  if (reason.has_value() && !reason->metadata.empty() && reason->metadata[0].first == "field") {
    return status;
  }
  if (reason.has_value() && reason->reason != "PATH_OUTSIDE_POOL") return annotated;
  if (reason.has_value()) return WithReason(annotated, {reason->reason, {{"pool", spec.pool}}});
  switch (status.code()) {
    case absl::StatusCode::kPermissionDenied:  // the daemon's rights do not suffice
      return WithReason(absl::UnavailableError(annotated.message()),
                        {"POOL_UNREACHABLE", {{"pool", spec.pool}}});
    case absl::StatusCode::kResourceExhausted:
      return WithReason(annotated, {"POOL_FULL", {{"pool", spec.pool}}});
    default:
      return annotated;
  }
}

absl::Status ReasonForFile(const absl::Status& status, const ImageSpec& spec) {
  if (status.code() != absl::StatusCode::kNotFound) return ReasonFor(status, spec);
  return WithReason(absl::FailedPreconditionError(
                        absl::StrCat(spec.name, ": the image's file is missing from its pool")),
                    {"IMAGE_FILE_MISSING", {{"image", spec.name}}});
}

absl::Status ReasonForSource(const absl::Status& status, const ImageSpec& spec) {
  if (status.ok()) return status;
  const std::optional<Reason> given = ReasonOf(status);
  const bool is_about_image = given.has_value() && !given->metadata.empty() &&
                              given->metadata[0].first == "field" &&
                              given->metadata[0].second.starts_with("image.");
  if (is_about_image) return status;
  Reason reason{given.has_value() ? given->reason : "", {{"field", "source_file"}}};
  for (const auto& [key, value] :
       given.has_value() ? given->metadata : decltype(reason.metadata){}) {
    if (key != "image" && key != "field") reason.metadata.emplace_back(key, value);
  }
  absl::StatusCode code = status.code();
  if (reason.reason.empty()) {
    switch (code) {
      case absl::StatusCode::kNotFound:
        reason.reason = "RESOURCE_NOT_FOUND";
        break;
      case absl::StatusCode::kInvalidArgument:
        reason.reason = "FIELD_INVALID";
        break;
      case absl::StatusCode::kPermissionDenied:  // the daemon's rights do not suffice
        code = absl::StatusCode::kUnavailable;
        reason.reason = "POOL_UNREACHABLE";
        reason.metadata.emplace_back("pool", spec.pool);
        break;
      default:
        return Annotate(status, "the source");
    }
  }
  return WithReason(absl::Status(code, absl::StrCat("the source: ", status.message())), reason);
}

absl::StatusOr<Owner> OwnerOf(int fd, const ImageSpec& spec) {
  const absl::StatusOr<std::optional<std::string>> uid = io::GetFileUid(fd);
  // Where the file system cannot say, names have to do.
  if (uid.status().code() == absl::StatusCode::kUnimplemented) return Owner::kThis;
  RETURN_IF_ERROR(uid.status());
  if (!uid->has_value()) return Owner::kNobody;
  return **uid == spec.uid ? Owner::kThis : Owner::kAnother;
}

absl::Status SetIdentity(int fd, const ImageSpec& spec) {
  absl::Status set = io::SetFileUid(fd, spec.uid);
  if (set.code() == absl::StatusCode::kUnimplemented) return absl::OkStatus();
  return set;
}

absl::StatusOr<bool> IsOurs(const io::Directory& pool, const ImageSpec& spec) {
  const absl::StatusOr<io::UniqueFd> fd = pool.Open(spec.file_name, {});
  if (fd.status().code() == absl::StatusCode::kNotFound) return false;
  RETURN_IF_ERROR(fd.status());
  const absl::StatusOr<std::optional<std::string>> uid = io::GetFileUid(fd->get());
  if (uid.status().code() == absl::StatusCode::kUnimplemented) return false;
  RETURN_IF_ERROR(uid.status());
  return uid->has_value() && **uid == spec.uid;
}

absl::Status CheckStillNamed(const io::Directory& pool, const ImageSpec& spec, int fd) {
  const absl::StatusOr<io::UniqueFd> named = pool.Open(spec.file_name, {});
  if (!named.ok()) return ReasonForFile(named.status(), spec);
  struct stat held;
  struct stat found;
  if (fstat(fd, &held) != 0 || fstat(named->get(), &found) != 0) {
    return Annotate(io::ErrnoStatus(errno, "fstat"), spec.name);
  }
  if (held.st_dev == found.st_dev && held.st_ino == found.st_ino) return absl::OkStatus();
  return ReasonForFile(absl::NotFoundError("the file has just been removed"), spec);
}

absl::Status Replaced(const ImageSpec& spec, std::string_view what) {
  return WithReason(absl::FailedPreconditionError(AsAbsl(what)),
                    {"IMAGE_REPLACED", {{"image", spec.name}}});
}

absl::Status Taken(const ImageSpec& spec) {
  return WithReason(absl::AlreadyExistsError(absl::StrCat("the pool has a file '", spec.file_name,
                                                          "' that is not this image's")),
                    {"RESOURCE_EXISTS", {{"pool", spec.pool}, {"file", spec.file_name}}});
}

}  // namespace gabion::engine
