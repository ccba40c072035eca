#include "engine/image_files.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/reason.h"
#include "engine/base/status_macros.h"
#include "engine/base/text.h"
#include "engine/image.h"
#include "engine/io/errno_status.h"

namespace gabion::engine {
namespace {

absl::Status ReasonFor(const absl::Status& status, const ImageSpec& spec) {
  absl::Status annotated = Annotate(status, spec.name);
  if (annotated.ok()) return annotated;
  const std::optional<Reason> reason = ReasonOf(annotated);
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

// What a file says of whose it is.
enum class Owner { kThis, kAnother, kNobody };

absl::StatusOr<Owner> OwnerOf(int fd, const ImageSpec& spec) {
  const absl::StatusOr<std::optional<std::string>> uid = io::GetFileUid(fd);
  // Where the file system cannot say, names have to do.
  if (uid.status().code() == absl::StatusCode::kUnimplemented) return Owner::kThis;
  RETURN_IF_ERROR(uid.status());
  if (!uid->has_value()) return Owner::kNobody;
  return **uid == spec.uid ? Owner::kThis : Owner::kAnother;
}

absl::Status Replaced(const ImageSpec& spec, std::string_view what) {
  return WithReason(absl::FailedPreconditionError(AsAbsl(what)),
                    {"IMAGE_REPLACED", {{"image", spec.name}}});
}

// A file that says nothing, such as one that was put back from a backup, is served, and says whose
// it is from then on.
absl::Status CheckBeforeServing(int fd, const ImageSpec& spec) {
  ASSIGN_OR_RETURN(const Owner owner, OwnerOf(fd, spec));
  if (owner == Owner::kAnother) return Replaced(spec, "the file belongs to another image");
  if (owner == Owner::kNobody) io::SetFileUid(fd, spec.uid).IgnoreError();  // read-only: as it was
  return absl::OkStatus();
}

// Only what is known to be this image's is deleted.
absl::Status CheckBeforeDeleting(int fd, const ImageSpec& spec) {
  ASSIGN_OR_RETURN(const Owner owner, OwnerOf(fd, spec));
  if (owner == Owner::kThis) return absl::OkStatus();
  if (owner == Owner::kAnother) return Replaced(spec, "the file belongs to another image");
  return Replaced(spec,
                  "the file does not say whose it is, so it is not deleted; exporting the image"
                  " once claims it");
}

// OK if the file still has a name. Called with the locks held, which whoever deletes it takes
// first: between opening a file and locking it, it may have been deleted.
absl::Status CheckStillThere(int fd) {
  struct stat details;
  if (fstat(fd, &details) != 0) return io::ErrnoStatus(errno, "fstat");
  if (details.st_nlink > 0) return absl::OkStatus();
  return absl::NotFoundError("the file has just been deleted");
}

// True if the file exists and says that it is this image's.
absl::StatusOr<bool> IsOurs(const io::Directory& pool, const ImageSpec& spec) {
  const absl::StatusOr<io::UniqueFd> fd = pool.Open(spec.file_name, {});
  if (fd.status().code() == absl::StatusCode::kNotFound) return false;
  RETURN_IF_ERROR(fd.status());
  const absl::StatusOr<std::optional<std::string>> uid = io::GetFileUid(fd->get());
  if (uid.status().code() == absl::StatusCode::kUnimplemented) return false;
  RETURN_IF_ERROR(uid.status());
  return uid->has_value() && **uid == spec.uid;
}

absl::Status SetIdentity(int fd, const ImageSpec& spec) {
  absl::Status set = io::SetFileUid(fd, spec.uid);
  if (set.code() == absl::StatusCode::kUnimplemented) return absl::OkStatus();
  return set;
}

absl::Status Taken(const ImageSpec& spec) {
  return WithReason(absl::AlreadyExistsError(absl::StrCat("the pool has a file '", spec.file_name,
                                                          "' that is not this image's")),
                    {"RESOURCE_EXISTS", {{"pool", spec.pool}, {"file", spec.file_name}}});
}

absl::Status Finish(int fd, uint64_t size) {
  if (ftruncate(fd, static_cast<off_t>(size)) != 0) return io::ErrnoStatus(errno, "set the size");
  if (fsync(fd) != 0) return io::ErrnoStatus(errno, "sync");
  return absl::OkStatus();
}

// Where a file is made: its own name appears when it is complete, and says whose it is.
std::string UnfinishedName(const ImageSpec& spec) {
  return absl::StrCat(".", spec.uid, ".unfinished");
}

absl::Status RemoveUnfinished(const io::Directory& pool, const ImageSpec& spec) {
  const absl::Status removed = pool.Unlink(UnfinishedName(spec));
  return removed.code() == absl::StatusCode::kNotFound ? absl::OkStatus() : removed;
}

template <typename Fill>
absl::Status MakeUnfinished(const io::Directory& pool, const ImageSpec& spec, Fill fill) {
  RETURN_IF_ERROR(RemoveUnfinished(pool, spec));  // of an attempt that was interrupted
  ASSIGN_OR_RETURN(const io::UniqueFd fd, pool.Create(UnfinishedName(spec)));
  RETURN_IF_ERROR(SetIdentity(fd.get(), spec));
  return fill(fd.get());
}

// Runs `fill` on a new file and gives it its name. A repeated call finds it finished. On error
// there is no file.
template <typename Fill>
absl::StatusOr<ImageInfo> MakeFile(const io::Directory& pool, const ImageSpec& spec, Fill fill) {
  ASSIGN_OR_RETURN(const bool finished, IsOurs(pool, spec));
  if (finished) return StatImageFile(pool, spec);
  absl::Status status = MakeUnfinished(pool, spec, fill);
  if (status.ok()) {
    status = pool.Rename(UnfinishedName(spec), spec.file_name);
    if (status.code() == absl::StatusCode::kAlreadyExists) status = Taken(spec);
  }
  if (!status.ok()) {
    RemoveUnfinished(pool, spec).IgnoreError();
    return status;
  }
  return StatImageFile(pool, spec);
}

// Copies the next run of data at or after `offset`; returns where to go on, or the size at the end.
absl::StatusOr<off_t> CopyRun(int from, int to, off_t offset, off_t size) {
  off_t data = lseek(from, offset, SEEK_DATA);
  if (data < 0 && errno == ENXIO) return size;
  if (data < 0) data = offset;  // the file system does not tell: all is data
  off_t end = lseek(from, data, SEEK_HOLE);
  if (end < 0) end = size;
  while (data < end) {
    const auto want = static_cast<std::size_t>(std::min<off_t>(end - data, off_t{1} << 30));
    off_t at = data;
    const ssize_t copied = copy_file_range(from, &data, to, &at, want, 0);
    if (copied < 0) return io::ErrnoStatus(errno, "copy");
    if (copied == 0) return size;  // it has become shorter; the rest is a hole
  }
  return end;
}

absl::Status CopyContent(int from, int to) {
  const off_t size = lseek(from, 0, SEEK_END);
  if (size < 0) return io::ErrnoStatus(errno, "seek");
  if (ioctl(to, FICLONE, from) != 0) {
    // No shared extents here: copy the data.
    for (off_t offset = 0; offset < size;) {
      ASSIGN_OR_RETURN(offset, CopyRun(from, to, offset, size));
    }
  }
  return Finish(to, static_cast<uint64_t>(size));
}

// Gives the file the image's identity and name.
absl::StatusOr<ImageInfo> Adopt(const io::Directory& pool, const ImageSpec& spec,
                                const std::string& source_file) {
  ASSIGN_OR_RETURN(const io::UniqueFd fd, pool.Open(source_file, {.writable = true}));
  io::FileLock lock(fd.get());
  RETURN_IF_ERROR(LockImage(spec.name, lock, io::LockMode::kWriter));
  ASSIGN_OR_RETURN(const Owner owner, OwnerOf(fd.get(), spec));
  if (owner == Owner::kAnother) {
    return Replaced(spec, "the file belongs to another image; import a copy of it instead");
  }
  RETURN_IF_ERROR(SetIdentity(fd.get(), spec));
  if (fsync(fd.get()) != 0) return io::ErrnoStatus(errno, "sync");
  if (source_file == spec.file_name) return StatImageFile(pool, spec);  // has the name already
  const absl::Status renamed = pool.Rename(source_file, spec.file_name);
  if (!renamed.ok() && owner == Owner::kNobody) io::ClearFileUid(fd.get());
  if (renamed.code() == absl::StatusCode::kAlreadyExists) return Taken(spec);
  RETURN_IF_ERROR(renamed);
  return StatImageFile(pool, spec);
}

}  // namespace

absl::StatusOr<OpenedImage> OpenImageFile(const io::Directory& pool, const ImageSpec& spec,
                                          bool direct) {
  absl::StatusOr<io::UniqueFd> file =
      pool.Open(spec.file_name, {.writable = true, .direct = direct});
  if (file.status().code() == absl::StatusCode::kPermissionDenied) {
    file = pool.Open(spec.file_name, {.writable = false, .direct = direct});
  }
  if (!file.ok()) return ReasonFor(file.status(), spec);
  RETURN_IF_ERROR(Annotate(CheckBeforeServing(file->get(), spec), spec.name));
  io::UniqueFd lock_fd(fcntl(file->get(), F_DUPFD_CLOEXEC, 0));
  if (!lock_fd.valid()) return Annotate(io::ErrnoStatus(errno, "dup"), spec.name);
  io::FileLock lock(lock_fd.get());
  RETURN_IF_ERROR(LockImage(spec.name, lock, io::LockMode::kReader));
  RETURN_IF_ERROR(Annotate(CheckStillThere(lock_fd.get()), spec.name));
  return OpenedImage{*std::move(file), std::move(lock_fd), lock};
}

absl::StatusOr<ImageInfo> CreateImageFile(const io::Directory& pool, const ImageSpec& spec,
                                          ByteCount size) {
  absl::StatusOr<ImageInfo> made =
      MakeFile(pool, spec, [size](int fd) { return Finish(fd, size.value); });
  if (!made.ok()) return ReasonFor(made.status(), spec);
  return made;
}

absl::StatusOr<ImageInfo> ImportImageFile(const io::Directory& pool, const ImageSpec& spec,
                                          const std::string& source_file, bool move) {
  if (move) {
    // A repeated call finds the file moved already.
    const absl::StatusOr<bool> ours = IsOurs(pool, spec);
    if (ours.ok() && *ours) return StatImageFile(pool, spec);
    absl::StatusOr<ImageInfo> adopted = Adopt(pool, spec, source_file);
    if (!adopted.ok()) return ReasonFor(adopted.status(), spec);
    return adopted;
  }
  const absl::StatusOr<io::UniqueFd> source = pool.Open(source_file, {});
  if (!source.ok()) return ReasonFor(source.status(), spec);
  io::FileLock lock(source->get());
  RETURN_IF_ERROR(LockImage(spec.name, lock, io::LockMode::kReader));
  absl::StatusOr<ImageInfo> made =
      MakeFile(pool, spec, [&source](int fd) { return CopyContent(source->get(), fd); });
  if (!made.ok()) return ReasonFor(made.status(), spec);
  return made;
}

absl::StatusOr<ImageInfo> StatImageFile(const io::Directory& pool, const ImageSpec& spec) {
  const absl::StatusOr<io::DirectoryEntry> entry = pool.Stat(spec.file_name);
  if (!entry.ok()) return ReasonFor(entry.status(), spec);
  return ImageInfo{entry->size, entry->allocated};
}

absl::Status DeleteImageFile(const io::Directory& pool, const ImageSpec& spec) {
  const absl::Status unfinished = RemoveUnfinished(pool, spec);
  if (!unfinished.ok()) return ReasonFor(unfinished, spec);
  const absl::StatusOr<io::UniqueFd> file = pool.Open(spec.file_name, {.writable = true});
  if (file.status().code() == absl::StatusCode::kNotFound) return absl::OkStatus();
  if (!file.ok()) return ReasonFor(file.status(), spec);
  RETURN_IF_ERROR(Annotate(CheckBeforeDeleting(file->get(), spec), spec.name));
  io::FileLock lock(file->get());
  RETURN_IF_ERROR(LockImage(spec.name, lock, io::LockMode::kWriter));
  const absl::Status unlinked = pool.Unlink(spec.file_name);
  if (unlinked.code() == absl::StatusCode::kNotFound) return absl::OkStatus();
  return ReasonFor(unlinked, spec);
}

}  // namespace gabion::engine
