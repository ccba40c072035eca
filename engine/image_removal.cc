#include "engine/image_removal.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <set>
#include <string_view>

#include "engine/base/align.h"
#include "engine/base/status_macros.h"
#include "engine/image.h"
#include "engine/image_owner.h"
#include "engine/io/errno_status.h"
#include "engine/io/file_lock.h"
#include "engine/io/unique_fd.h"

namespace gabion::engine {
namespace {

constexpr uint64_t kUnit = 4096;  // where files are cut
// What a cut costs at least: it bounds how many a piece makes.
constexpr uint64_t kCutCost = 64 * kKiB;

absl::StatusOr<struct stat> Look(int fd) {
  struct stat details;
  if (fstat(fd, &details) != 0) return io::ErrnoStatus(errno, "fstat");
  return details;
}

uint64_t Allocated(const struct stat& details) {
  return static_cast<uint64_t>(details.st_blocks) * 512;
}

// Opens the image's file with the writer's locks. Not valid if there is none, or it is another
// image's.
absl::StatusOr<io::UniqueFd> OpenOwn(const io::Directory& pool, const ImageSpec& spec) {
  absl::StatusOr<io::UniqueFd> file = pool.Open(spec.file_name, {.writable = true});
  if (file.status().code() == absl::StatusCode::kNotFound) return io::UniqueFd();
  RETURN_IF_ERROR(file.status());
  ASSIGN_OR_RETURN(const Owner owner, OwnerOf(file->get(), spec));
  if (owner == Owner::kAnother) return io::UniqueFd();
  if (owner == Owner::kNobody) {
    return Replaced(spec,
                    "the file does not say whose it is, so it is not deleted; exporting the image"
                    " once claims it");
  }
  io::FileLock lock(file->get());
  RETURN_IF_ERROR(LockImage(spec.name, lock, io::LockMode::kWriter));
  return file;
}

absl::StatusOr<bool> Exists(const io::Directory& pool, const std::string& name) {
  const absl::Status found = pool.Stat(name).status();
  if (found.code() == absl::StatusCode::kNotFound) return false;
  RETURN_IF_ERROR(found);
  return true;
}

// Gives the next file that is to go the name of a removed one. False if there is none.
absl::StatusOr<bool> HideNext(const io::Directory& pool, const ImageSpec& spec) {
  ASSIGN_OR_RETURN(const bool hidden, Exists(pool, RemovedName(spec)));
  if (hidden) return true;
  ASSIGN_OR_RETURN(const io::UniqueFd own, OpenOwn(pool, spec));
  const std::string name = own.valid() ? spec.file_name : UnfinishedName(spec);
  const absl::Status renamed = pool.Rename(name, RemovedName(spec));
  if (renamed.code() == absl::StatusCode::kNotFound) return false;
  RETURN_IF_ERROR(renamed);
  return true;
}

// Where the last hole begins, to a unit. In steps that halve, as nothing looks for data backwards.
uint64_t EndOfData(int fd, uint64_t size) {
  uint64_t data = 0;                                  // units: there may be data before
  uint64_t hole = size / kUnit + (size % kUnit > 0);  // none from here on
  while (data < hole) {
    const uint64_t middle = data + (hole - data) / 2;
    const off_t found = lseek(fd, static_cast<off_t>(middle * kUnit), SEEK_DATA);
    if (found < 0 && errno == ENXIO) {
      hole = middle;
    } else {
      data = middle + 1;
    }
  }
  return std::min(size, data * kUnit);
}

// Cuts the file from its end, as far as `budget` goes, and takes from it what that cost. Returns
// true if the rest may go at once.
absl::StatusOr<bool> Cut(int fd, uint64_t& budget) {
  ASSIGN_OR_RETURN(struct stat now, Look(fd));
  while (budget > 0) {
    const uint64_t allocated = Allocated(now);
    const auto size = static_cast<uint64_t>(now.st_size);
    if (size == 0 || allocated <= budget) {
      budget -= std::min(budget, std::max(allocated, kCutCost));
      return true;
    }
    const bool sparse = allocated < size / 2;
    const uint64_t end = sparse ? EndOfData(fd, size) : size;
    const uint64_t rest = RoundDown(end - std::min(end, budget), kUnit);
    if (ftruncate(fd, static_cast<off_t>(rest)) != 0) return io::ErrnoStatus(errno, "cut");
    ASSIGN_OR_RETURN(now, Look(fd));
    const uint64_t freed = allocated - std::min(allocated, Allocated(now));
    budget -= std::min(budget, std::max(freed, kCutCost));
  }
  return false;
}

// What the files of the image that are still there take.
absl::StatusOr<uint64_t> AllocatedByAll(const io::Directory& pool, const ImageSpec& spec) {
  uint64_t sum = 0;
  for (const std::string& name : {RemovedName(spec), UnfinishedName(spec)}) {
    const absl::StatusOr<io::DirectoryEntry> entry = pool.Stat(name);
    if (entry.ok()) sum += entry->allocated.value;
  }
  ASSIGN_OR_RETURN(const io::UniqueFd own, OpenOwn(pool, spec));
  if (!own.valid()) return sum;
  ASSIGN_OR_RETURN(const struct stat details, Look(own.get()));
  return sum + Allocated(details);
}

absl::StatusOr<RemovalProgress> Remove(const io::Directory& pool, const ImageSpec& spec,
                                       uint64_t budget) {
  RemovalProgress progress;
  ASSIGN_OR_RETURN(progress.total.value, AllocatedByAll(pool, spec));
  budget = std::max(budget, kUnit);
  while (true) {
    ASSIGN_OR_RETURN(const bool more, HideNext(pool, spec));
    if (!more) return RemovalProgress{progress.total, progress.total, true};
    if (budget == 0) break;
    ASSIGN_OR_RETURN(const io::UniqueFd file, pool.Open(RemovedName(spec), {.writable = true}));
    ASSIGN_OR_RETURN(const bool cut, Cut(file.get(), budget));
    if (cut) RETURN_IF_ERROR(pool.Unlink(RemovedName(spec)));
  }
  ASSIGN_OR_RETURN(const uint64_t left, AllocatedByAll(pool, spec));
  progress.done.value = progress.total.value - std::min(progress.total.value, left);
  return progress;
}

}  // namespace

absl::StatusOr<RemovalProgress> RemoveImageFile(const io::Directory& pool, const ImageSpec& spec,
                                                ByteCount budget) {
  absl::StatusOr<RemovalProgress> progress = Remove(pool, spec, budget.value);
  if (!progress.ok()) return ReasonFor(progress.status(), spec);
  return progress;
}

absl::Status CheckImageRemoval(const io::Directory& pool, const ImageSpec& spec) {
  return ReasonFor(OpenOwn(pool, spec).status(), spec);
}

absl::StatusOr<std::vector<std::string>> SweepWorkFiles(const io::Directory& pool,
                                                        const std::vector<std::string>& keep_uids) {
  const std::set<std::string_view> keep(keep_uids.begin(), keep_uids.end());
  ASSIGN_OR_RETURN(const std::vector<io::DirectoryEntry> entries, pool.List());
  std::vector<std::string> swept;
  for (const io::DirectoryEntry& entry : entries) {
    const std::string_view uid = UidOfWorkName(entry.name);
    if (uid.empty() || keep.contains(uid)) continue;
    const absl::Status removed = pool.Unlink(entry.name);
    if (removed.code() == absl::StatusCode::kNotFound) continue;
    RETURN_IF_ERROR(removed);
    swept.push_back(entry.name);
  }
  return swept;
}

}  // namespace gabion::engine
