// Whose a file of a pool is, under which names an image's file is made and removed, and what errors
// of files mean for the image. Calls block; any thread.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/image_spec.h"
#include "engine/io/directory.h"

namespace gabion::engine {

// Where a file is made: its own name appears when it is complete.
std::string UnfinishedName(const ImageSpec& spec);
// Where a file goes away: its own name is free at once.
std::string RemovedName(const ImageSpec& spec);
// "UID" of either name; empty for any other name.
std::string_view UidOfWorkName(std::string_view name);

// The error with the image's name and the API's reason. One that names a field passes unchanged.
absl::Status ReasonFor(const absl::Status& status, const ImageSpec& spec);
// The same for the image's own file: that it is missing is kFailedPrecondition IMAGE_FILE_MISSING.
absl::Status ReasonForFile(const absl::Status& status, const ImageSpec& spec);
// The error as one of the file that an image is made of, not of the image: it names the field
// `source_file`.
absl::Status ReasonForSource(const absl::Status& status, const ImageSpec& spec);

// What a file says of whose it is. kThis also where the file system cannot say.
enum class Owner { kThis, kAnother, kNobody };
absl::StatusOr<Owner> OwnerOf(int fd, const ImageSpec& spec);
// No effect where the file system has no room for it.
absl::Status SetIdentity(int fd, const ImageSpec& spec);

// True if the image's file exists and says that it is this image's.
absl::StatusOr<bool> IsOurs(const io::Directory& pool, const ImageSpec& spec);

// OK if the open file still has the image's name. Called with the locks held, which whoever removes
// it takes first: between opening a file and locking it, it may have been removed.
absl::Status CheckStillNamed(const io::Directory& pool, const ImageSpec& spec, int fd);

// kFailedPrecondition IMAGE_REPLACED.
absl::Status Replaced(const ImageSpec& spec, std::string_view what);
// kAlreadyExists RESOURCE_EXISTS.
absl::Status Taken(const ImageSpec& spec);

}  // namespace gabion::engine
