#include "engine/image_build.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/reason.h"
#include "engine/base/status_macros.h"
#include "engine/image.h"
#include "engine/image_files.h"
#include "engine/image_fill.h"
#include "engine/image_format.h"
#include "engine/image_owner.h"
#include "engine/io/errno_status.h"
#include "engine/io/file_lock.h"
#include "engine/io/unique_fd.h"

namespace gabion::engine {
namespace {

// What an image is made of. Holds the source's locks.
struct Source {
  io::UniqueFd file;  // not valid: nothing, a new image
  ByteCount size;
  ByteCount allocated;
  std::optional<qcow2::NewImageLayout> layout;  // of a new qcow2 image
  ByteCount virtual_size;
  // What is noted on the unfinished file; another note means that the source has changed.
  std::string note;
};

absl::Status CheckMovable(const struct stat& details, const ImageBuild& build, int fd) {
  if (!build.move) return absl::OkStatus();
  if (!S_ISREG(details.st_mode)) {
    return absl::InvalidArgumentError("only a regular file can be moved; import a copy of it");
  }
  ASSIGN_OR_RETURN(const Owner owner, OwnerOf(fd, build.spec));
  if (owner != Owner::kAnother) return absl::OkStatus();
  return Replaced(build.spec, "the file belongs to another image; import a copy of it instead");
}

absl::StatusOr<Source> OpenSourceFile(const io::Directory& pool, const ImageBuild& build) {
  Source source;
  ASSIGN_OR_RETURN(source.file, pool.Open(build.source_file, {.writable = build.move}));
  io::FileLock lock(source.file.get());
  const io::LockMode mode = build.move ? io::LockMode::kWriter : io::LockMode::kReader;
  RETURN_IF_ERROR(LockImage(build.source_file, lock, mode));
  struct stat details;
  const off_t end = lseek(source.file.get(), 0, SEEK_END);
  if (end < 0 || fstat(source.file.get(), &details) != 0) {
    return io::ErrnoStatus(errno, "look at it");
  }
  if (end == 0) {
    return WithReason(absl::OutOfRangeError("the file is empty, and an image has at least a byte"),
                      {"SIZE_OUT_OF_RANGE", {{"size", "0"}}});
  }
  RETURN_IF_ERROR(CheckMovable(details, build, source.file.get()));
  source.size.value = static_cast<uint64_t>(end);
  source.virtual_size = source.size;
  if (build.spec.format == ImageFormat::kQcow2) {
    ASSIGN_OR_RETURN(const qcow2::Header header,
                     ReadQcow2Header(source.file.get(), source.size, build.spec));
    RETURN_IF_ERROR(CheckImportable(header, build));
    source.virtual_size.value = header.size;
  }
  source.allocated.value = static_cast<uint64_t>(details.st_blocks) * 512;
  source.note = absl::StrCat("copy ", details.st_dev, ":", details.st_ino, ":", end, ":",
                             details.st_mtim.tv_sec, ".", details.st_mtim.tv_nsec);
  return source;
}

absl::StatusOr<Source> NewSource(const ImageBuild& build) {
  Source source;
  source.virtual_size = build.size;
  if (build.spec.format == ImageFormat::kRaw) {
    if (build.preallocation == Preallocation::kMetadata) {
      return absl::InvalidArgumentError("a raw image has no metadata to be preallocated");
    }
    source.size = build.size;
    source.note = absl::StrCat("new ", build.size.value);
    return source;
  }
  const Qcow2Layout& how = build.qcow2;
  absl::StatusOr<qcow2::NewImageLayout> layout = LayoutOf(build);
  if (!layout.ok()) {
    return WithReason(layout.status(), {"FIELD_INVALID", {{"field", "image.qcow2"}}});
  }
  source.size.value = layout->file_bytes();
  source.allocated.value = layout->metadata_bytes();
  source.note =
      absl::StrCat("new qcow2 ", build.size.value, " ", how.version, " ", how.cluster_bits, " ",
                   how.refcount_order, how.extended_l2, how.lazy_refcounts,
                   static_cast<int>(how.compression), layout->header().backing_file.value_or(""));
  source.layout = *std::move(layout);
  return source;
}

absl::StatusOr<Source> OpenSource(const io::Directory& pool, const ImageBuild& build) {
  if (build.source_file.empty()) return NewSource(build);
  absl::StatusOr<Source> source = OpenSourceFile(pool, build);
  if (!source.ok()) return ReasonForSource(source.status(), build.spec);
  return source;
}

absl::StatusOr<BuildProgress> Complete(const io::Directory& pool, const ImageSpec& spec) {
  ASSIGN_OR_RETURN(const ImageInfo info, StatImageFile(pool, spec));
  ASSIGN_OR_RETURN(const io::DirectoryEntry entry, pool.Stat(spec.file_name));
  return BuildProgress{entry.size, entry.size, true, info};
}

absl::Status CheckNameIsFree(const io::Directory& pool, const ImageBuild& build) {
  if (build.move && build.source_file == build.spec.file_name) return absl::OkStatus();
  const absl::Status found = pool.Stat(build.spec.file_name).status();
  if (found.ok()) return Taken(build.spec);
  return found.code() == absl::StatusCode::kNotFound ? absl::OkStatus() : found;
}

// Where files can share what they have in common, a copy needs no space.
bool CanShare(const io::Directory& pool, const Source& source) {
  if (!source.file.valid()) return false;
  const absl::StatusOr<io::UniqueFd> probe = pool.CreateUnnamed();
  return probe.ok() && ioctl(probe->get(), FICLONE, source.file.get()) == 0;
}

absl::Status CheckSpace(const io::Directory& pool, const ImageBuild& build, const Source& source) {
  const bool holes =
      build.preallocation == Preallocation::kOff || build.preallocation == Preallocation::kMetadata;
  uint64_t needed = holes ? source.allocated.value : source.size.value;
  const absl::StatusOr<io::DirectoryEntry> begun = pool.Stat(UnfinishedName(build.spec));
  if (begun.ok()) needed -= std::min(needed, begun->allocated.value);
  if (needed == 0 || (holes && CanShare(pool, source))) return absl::OkStatus();
  ASSIGN_OR_RETURN(const io::DirectorySpace space, pool.Space());
  if (needed <= space.available.value) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat(needed, " bytes are needed, and the pool has ", space.available.value, " left"));
}

absl::Status CheckSource(const io::Directory& pool, const ImageBuild& build, const Source& source) {
  RETURN_IF_ERROR(CheckNameIsFree(pool, build));
  if (!build.move) return CheckSpace(pool, build, source);
  if (build.preallocation == Preallocation::kOff) return absl::OkStatus();
  return absl::InvalidArgumentError("a file that is moved is not preallocated");
}

// Gives the source the image's identity and name.
absl::StatusOr<BuildProgress> Adopt(const io::Directory& pool, const ImageBuild& build,
                                    const Source& source) {
  const ImageSpec& spec = build.spec;
  const int fd = source.file.get();
  ASSIGN_OR_RETURN(const Owner owner, OwnerOf(fd, spec));
  RETURN_IF_ERROR(SetIdentity(fd, spec));
  if (fsync(fd) != 0) return io::ErrnoStatus(errno, "sync");
  if (build.source_file == spec.file_name) return Complete(pool, spec);  // has the name already
  const absl::Status renamed = pool.Rename(build.source_file, spec.file_name);
  if (!renamed.ok() && owner == Owner::kNobody) io::ClearFileUid(fd);
  if (renamed.code() == absl::StatusCode::kAlreadyExists) return Taken(spec);
  RETURN_IF_ERROR(renamed);
  return Complete(pool, spec);
}

absl::StatusOr<std::optional<std::string>> NoteOn(int fd) {
  absl::StatusOr<std::optional<std::string>> note = io::GetFileSource(fd);
  if (note.status().code() == absl::StatusCode::kUnimplemented) return std::nullopt;
  return note;
}

absl::Status Note(int fd, const std::string& note) {
  const absl::Status set = io::SetFileSource(fd, note);
  return set.code() == absl::StatusCode::kUnimplemented ? absl::OkStatus() : set;
}

// Sizes the file and notes what it is made of. What it holds already is kept if it was made of the
// same: it will be written once more.
absl::Status Begin(int fd, const ImageSpec& spec, const Source& source) {
  ASSIGN_OR_RETURN(const std::optional<std::string> note, NoteOn(fd));
  if (note != source.note && ftruncate(fd, 0) != 0) return io::ErrnoStatus(errno, "empty");
  RETURN_IF_ERROR(SetIdentity(fd, spec));
  RETURN_IF_ERROR(Note(fd, source.note));
  if (ftruncate(fd, static_cast<off_t>(source.size.value)) != 0) {
    return io::ErrnoStatus(errno, "set the size");
  }
  return absl::OkStatus();
}

// A file whose note is gone was complete, but for its name.
absl::Status CheckUnchanged(int fd, const Source& source) {
  ASSIGN_OR_RETURN(const std::optional<std::string> note, NoteOn(fd));
  const off_t size = lseek(fd, 0, SEEK_END);
  if (size < 0) return io::ErrnoStatus(errno, "seek");
  if (static_cast<uint64_t>(size) == source.size.value &&
      note.value_or(source.note) == source.note) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      "what the image is made of has changed since the work on it began");
}

absl::StatusOr<io::UniqueFd> OpenUnfinished(const io::Directory& pool, const ImageSpec& spec,
                                            const Source& source, uint64_t& from) {
  absl::StatusOr<io::UniqueFd> file = pool.Open(UnfinishedName(spec), {.writable = true});
  if (file.status().code() == absl::StatusCode::kNotFound) {
    from = 0;
    file = pool.Create(UnfinishedName(spec));
  }
  RETURN_IF_ERROR(file.status());
  RETURN_IF_ERROR(from == 0 ? Begin(file->get(), spec, source)
                            : CheckUnchanged(file->get(), source));
  return file;
}

absl::StatusOr<BuildProgress> Finish(const io::Directory& pool, const ImageSpec& spec, int fd) {
  io::ClearFileSource(fd);
  if (fsync(fd) != 0) return io::ErrnoStatus(errno, "sync");
  const absl::Status renamed = pool.Rename(UnfinishedName(spec), spec.file_name);
  if (renamed.code() == absl::StatusCode::kAlreadyExists) return Taken(spec);
  RETURN_IF_ERROR(renamed);
  return Complete(pool, spec);
}

absl::StatusOr<BuildProgress> Build(const io::Directory& pool, const ImageBuild& build,
                                    uint64_t from, uint64_t budget) {
  const ImageSpec& spec = build.spec;
  ASSIGN_OR_RETURN(const bool finished, IsOurs(pool, spec));
  if (finished) return Complete(pool, spec);
  ASSIGN_OR_RETURN(const Source source, OpenSource(pool, build));
  RETURN_IF_ERROR(CheckSource(pool, build, source));
  if (build.move) return Adopt(pool, build, source);
  from = std::min(from, source.size.value);
  ASSIGN_OR_RETURN(const io::UniqueFd file, OpenUnfinished(pool, spec, source, from));
  const FillJob job{source.file.valid() ? source.file.get() : -1, file.get(), source.size.value,
                    build.preallocation, source.layout.has_value() ? &*source.layout : nullptr};
  ASSIGN_OR_RETURN(const uint64_t done, Fill(job, from, budget));
  if (done == source.size.value) {
    if (source.file.valid() && spec.format == ImageFormat::kQcow2) {
      RETURN_IF_ERROR(WriteBackingName(file.get(), spec));
    }
    return Finish(pool, spec, file.get());
  }
  if (fsync(file.get()) != 0) return io::ErrnoStatus(errno, "sync");
  return BuildProgress{ByteCount{done}, source.size, false, {source.virtual_size, {}}};
}

absl::StatusOr<BuildProgress> Check(const io::Directory& pool, const ImageBuild& build) {
  ASSIGN_OR_RETURN(const bool finished, IsOurs(pool, build.spec));
  if (finished) return Complete(pool, build.spec);
  ASSIGN_OR_RETURN(const Source source, OpenSource(pool, build));
  RETURN_IF_ERROR(CheckSource(pool, build, source));
  if (!build.move) RETURN_IF_ERROR(CheckFileSize(pool, source.size));
  return BuildProgress{ByteCount{0}, source.size, false, {source.virtual_size, {}}};
}

}  // namespace

absl::Status CheckFileSize(const io::Directory& pool, ByteCount size) {
  const absl::StatusOr<io::UniqueFd> probe = pool.CreateUnnamed();
  // Where there are no such files, only the work itself can tell.
  if (probe.status().code() == absl::StatusCode::kUnimplemented) return absl::OkStatus();
  RETURN_IF_ERROR(probe.status());
  if (ftruncate(probe->get(), static_cast<off_t>(size.value)) == 0) return absl::OkStatus();
  return io::ErrnoStatus(errno, "set the size");
}

absl::StatusOr<BuildProgress> BuildImageFile(const io::Directory& pool, const ImageBuild& build,
                                             ByteOffset from, ByteCount budget) {
  absl::StatusOr<BuildProgress> progress = Build(pool, build, from.value, budget.value);
  if (!progress.ok()) return ReasonFor(progress.status(), build.spec);
  return progress;
}

absl::StatusOr<BuildProgress> CheckImageBuild(const io::Directory& pool, const ImageBuild& build) {
  absl::StatusOr<BuildProgress> progress = Check(pool, build);
  if (!progress.ok()) return ReasonFor(progress.status(), build.spec);
  return progress;
}

}  // namespace gabion::engine
