#include "engine/image_files.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <limits>
#include <utility>

#include "engine/base/reason.h"
#include "engine/base/status_macros.h"
#include "engine/image.h"
#include "engine/image_build.h"
#include "engine/image_format.h"
#include "engine/image_owner.h"
#include "engine/io/errno_status.h"

namespace gabion::engine {
namespace {

constexpr ByteCount kNoBudget{std::numeric_limits<uint64_t>::max()};

// A file that says nothing, such as one that was put back from a backup, is served, and says whose
// it is from then on.
absl::Status CheckBeforeServing(int fd, const ImageSpec& spec) {
  ASSIGN_OR_RETURN(const Owner owner, OwnerOf(fd, spec));
  if (owner == Owner::kAnother) return Replaced(spec, "the file belongs to another image");
  if (owner == Owner::kNobody) io::SetFileUid(fd, spec.uid).IgnoreError();  // read-only: as it was
  return absl::OkStatus();
}

// All of it at once. On error there is no file.
absl::StatusOr<ImageInfo> BuildAtOnce(const io::Directory& pool, const ImageBuild& build) {
  const absl::StatusOr<BuildProgress> progress =
      BuildImageFile(pool, build, ByteOffset{0}, kNoBudget);
  if (progress.ok()) return progress->info;
  pool.Unlink(UnfinishedName(build.spec)).IgnoreError();
  return progress.status();
}

}  // namespace

absl::StatusOr<OpenedImage> OpenImageFile(const io::Directory& pool, const ImageSpec& spec,
                                          bool direct) {
  absl::StatusOr<io::UniqueFd> file =
      pool.Open(spec.file_name, {.writable = true, .direct = direct});
  if (file.status().code() == absl::StatusCode::kPermissionDenied) {
    file = pool.Open(spec.file_name, {.writable = false, .direct = direct});
  }
  if (!file.ok()) return ReasonForFile(file.status(), spec);
  RETURN_IF_ERROR(Annotate(CheckBeforeServing(file->get(), spec), spec.name));
  io::UniqueFd lock_fd(fcntl(file->get(), F_DUPFD_CLOEXEC, 0));
  if (!lock_fd.valid()) return Annotate(io::ErrnoStatus(errno, "dup"), spec.name);
  io::FileLock lock(lock_fd.get());
  RETURN_IF_ERROR(LockImage(spec.name, lock, io::LockMode::kReader));
  RETURN_IF_ERROR(CheckStillNamed(pool, spec, lock_fd.get()));
  struct stat details;
  if (fstat(lock_fd.get(), &details) != 0) {
    return Annotate(io::ErrnoStatus(errno, "fstat"), spec.name);
  }
  const FileId id{details.st_dev, details.st_ino};
  return OpenedImage{*std::move(file), std::move(lock_fd), lock, id};
}

absl::StatusOr<ImageInfo> CreateImageFile(const io::Directory& pool, const ImageSpec& spec,
                                          ByteCount size) {
  return BuildAtOnce(pool, ImageBuild{.spec = spec, .size = size});
}

absl::StatusOr<ImageInfo> ImportImageFile(const io::Directory& pool, const ImageSpec& spec,
                                          const std::string& source_file, bool move) {
  return BuildAtOnce(pool, ImageBuild{.spec = spec, .source_file = source_file, .move = move});
}

absl::StatusOr<ImageInfo> StatImageFile(const io::Directory& pool, const ImageSpec& spec) {
  const absl::StatusOr<io::UniqueFd> file = pool.Open(spec.file_name, {});
  if (!file.ok()) return ReasonForFile(file.status(), spec);
  const absl::StatusOr<Owner> owner = OwnerOf(file->get(), spec);
  if (!owner.ok()) return ReasonFor(owner.status(), spec);
  if (*owner == Owner::kAnother) {
    return ReasonFor(Replaced(spec, "the file belongs to another image"), spec);
  }
  struct stat details;
  if (fstat(file->get(), &details) != 0) return ReasonFor(io::ErrnoStatus(errno, "fstat"), spec);
  const off_t size = lseek(file->get(), 0, SEEK_END);  // of a block device, too
  if (size < 0) return ReasonFor(io::ErrnoStatus(errno, "seek"), spec);
  ImageInfo info;
  info.allocated.value = static_cast<uint64_t>(details.st_blocks) * 512;
  info.file = {details.st_dev, details.st_ino};
  const absl::Status described =
      DescribeImage(file->get(), ByteCount{static_cast<uint64_t>(size)}, spec, info);
  if (!described.ok()) return ReasonFor(described, spec);
  return info;
}

}  // namespace gabion::engine
