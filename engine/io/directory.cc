#include "engine/io/directory.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/reason.h"
#include "engine/base/status_macros.h"
#include "engine/io/errno_status.h"

namespace gabion::io {
namespace {

constexpr char kUidAttribute[] = "user.gabion.uid";
constexpr char kSourceAttribute[] = "user.gabion.source";
constexpr std::size_t kMaxAttribute = 255;

absl::Status LeadsOutside() {
  return WithReason(absl::PermissionDeniedError("the name leads outside the pool"),
                    {"PATH_OUTSIDE_POOL", {}});
}

absl::Status NoImageFile() {
  return absl::InvalidArgumentError("the name is neither a regular file nor a block device");
}

absl::Status Failed(int error, std::string_view operation) {
  // EXDEV: left the directory; ELOOP: a symbolic link.
  if (error == EXDEV || error == ELOOP) return LeadsOutside();
  return ErrnoStatus(error, operation);
}

absl::Status CheckComponent(std::string_view component) {
  if (component == "..") return LeadsOutside();
  if (component.empty() || component == ".") {
    return absl::InvalidArgumentError("the name has an empty component, or the component '.'");
  }
  if (component.size() > NAME_MAX) {
    return absl::InvalidArgumentError("a component of the name is longer than 255 bytes");
  }
  return absl::OkStatus();
}

absl::Status CheckName(std::string_view name) {
  if (name.empty()) return absl::InvalidArgumentError("the name is empty");
  if (name.find('\0') != std::string_view::npos) {
    return absl::InvalidArgumentError("the name contains a NUL byte");
  }
  if (name.front() == '/') return LeadsOutside();
  if (name.size() >= PATH_MAX) {
    return absl::InvalidArgumentError("the name is longer than 4095 bytes");
  }
  while (true) {
    const std::size_t slash = name.find('/');
    RETURN_IF_ERROR(CheckComponent(name.substr(0, slash)));
    if (slash == std::string_view::npos) return absl::OkStatus();
    name.remove_prefix(slash + 1);
  }
}

// Opens `name` beneath `directory`; what the kernel refuses to resolve is an error.
UniqueFd OpenBeneath(int directory, const std::string& name, int flags, mode_t mode = 0) {
  open_how how = {};
  how.flags = static_cast<uint64_t>(flags | O_NOFOLLOW | O_CLOEXEC);
  how.mode = mode;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS;
  long fd;
  do {
    fd = syscall(SYS_openat2, directory, name.c_str(), &how, sizeof(how));
    // The kernel could not prove in one go that a concurrent rename does no harm.
  } while (fd < 0 && (errno == EINTR || errno == EAGAIN));
  return UniqueFd(static_cast<int>(fd));
}

bool IsImageFile(const struct stat& details) {
  return S_ISREG(details.st_mode) || S_ISBLK(details.st_mode);
}

// Looks at `name` without opening what it stands for: to open a device or a pipe can have effects.
absl::StatusOr<struct stat> Look(int directory, const std::string& name) {
  const UniqueFd fd = OpenBeneath(directory, name, O_PATH);
  if (!fd.valid()) return Failed(errno, "open");
  struct stat details;
  if (fstat(fd.get(), &details) != 0) return Failed(errno, "fstat");
  // With O_PATH and O_NOFOLLOW a link itself is what is opened.
  if (S_ISLNK(details.st_mode)) return LeadsOutside();
  if (!IsImageFile(details)) return NoImageFile();
  return details;
}

absl::StatusOr<struct stat> LookAtRegularFile(int directory, const std::string& name) {
  ASSIGN_OR_RETURN(const struct stat details, Look(directory, name));
  if (!S_ISREG(details.st_mode)) {
    return absl::InvalidArgumentError("the name is not a regular file");
  }
  return details;
}

DirectoryEntry EntryOf(std::string name, const struct stat& details) {
  DirectoryEntry entry;
  entry.name = std::move(name);
  entry.size.value = static_cast<uint64_t>(details.st_size);
  entry.allocated.value = static_cast<uint64_t>(details.st_blocks) * 512;
  entry.block_device = S_ISBLK(details.st_mode);
  return entry;
}

absl::Status SyncDirectory(int fd) {
  if (fsync(fd) != 0) return Failed(errno, "fsync of the directory");
  return absl::OkStatus();
}

absl::Status SetAttribute(int fd, const char* name, std::string_view value) {
  if (fsetxattr(fd, name, value.data(), value.size(), 0) == 0) return absl::OkStatus();
  return ErrnoStatus(errno, "fsetxattr");
}

absl::StatusOr<std::optional<std::string>> GetAttribute(int fd, const char* name) {
  std::array<char, kMaxAttribute> value;
  const ssize_t length = fgetxattr(fd, name, value.data(), value.size());
  if (length >= 0) return std::string(value.data(), static_cast<std::size_t>(length));
  if (errno == ENODATA) return std::nullopt;
  if (errno == ERANGE) {
    return absl::DataLossError(absl::StrCat("fgetxattr: ", name, " of the file is too long"));
  }
  return ErrnoStatus(errno, "fgetxattr");
}

}  // namespace

absl::StatusOr<Directory> Directory::Open(const std::string& path) {
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) return ErrnoStatus(errno, "open of the directory");
  return Directory(std::move(fd));
}

absl::StatusOr<Directory::Parent> Directory::OpenParent(std::string_view name) const {
  RETURN_IF_ERROR(CheckName(name));
  const std::size_t slash = name.rfind('/');
  const bool nested = slash != std::string_view::npos;
  const std::string parent = nested ? std::string(name.substr(0, slash)) : ".";
  UniqueFd fd = OpenBeneath(fd_.get(), parent, O_RDONLY | O_DIRECTORY);
  if (!fd.valid()) {
    // A link where a directory should be.
    if (errno == ENOTDIR && nested) {
      const auto found = Look(fd_.get(), parent);
      if (absl::IsPermissionDenied(found.status())) return found.status();
    }
    return Failed(errno, "open of the directory");
  }
  return Parent{std::move(fd), std::string(nested ? name.substr(slash + 1) : name)};
}

absl::StatusOr<UniqueFd> Directory::Open(std::string_view name, OpenOptions options) const {
  ASSIGN_OR_RETURN(const Parent parent, OpenParent(name));
  RETURN_IF_ERROR(Look(parent.fd.get(), parent.leaf).status());
  // O_NONBLOCK: should the name have become a pipe meanwhile, the open must not hang.
  const int flags = (options.writable ? O_RDWR : O_RDONLY) | O_NONBLOCK | O_NOCTTY;
  UniqueFd fd = OpenBeneath(parent.fd.get(), parent.leaf, flags | (options.direct ? O_DIRECT : 0));
  if (!fd.valid()) {
    if (errno == EINVAL && options.direct) {
      return absl::UnimplementedError("open: the file system has no direct I/O");
    }
    return Failed(errno, "open");
  }
  struct stat details;
  if (fstat(fd.get(), &details) != 0) return Failed(errno, "fstat");
  if (!IsImageFile(details)) return NoImageFile();
  const int status_flags = fcntl(fd.get(), F_GETFL);
  if (status_flags < 0 || fcntl(fd.get(), F_SETFL, status_flags & ~O_NONBLOCK) != 0) {
    return Failed(errno, "fcntl(F_SETFL)");
  }
  return fd;
}

absl::StatusOr<UniqueFd> Directory::Create(std::string_view name, mode_t mode) const {
  ASSIGN_OR_RETURN(const Parent parent, OpenParent(name));
  UniqueFd fd = OpenBeneath(parent.fd.get(), parent.leaf, O_RDWR | O_CREAT | O_EXCL, mode);
  if (!fd.valid()) return Failed(errno, "create");
  RETURN_IF_ERROR(SyncDirectory(parent.fd.get()));
  return fd;
}

absl::Status Directory::Unlink(std::string_view name) const {
  ASSIGN_OR_RETURN(const Parent parent, OpenParent(name));
  RETURN_IF_ERROR(LookAtRegularFile(parent.fd.get(), parent.leaf).status());
  if (unlinkat(parent.fd.get(), parent.leaf.c_str(), 0) != 0) return Failed(errno, "unlink");
  return SyncDirectory(parent.fd.get());
}

absl::Status Directory::Rename(std::string_view from, std::string_view to) const {
  ASSIGN_OR_RETURN(const Parent source, OpenParent(from));
  ASSIGN_OR_RETURN(const Parent target, OpenParent(to));
  RETURN_IF_ERROR(LookAtRegularFile(source.fd.get(), source.leaf).status());
  if (renameat2(source.fd.get(), source.leaf.c_str(), target.fd.get(), target.leaf.c_str(),
                RENAME_NOREPLACE) != 0) {
    return ErrnoStatus(errno, "rename");
  }
  // The new name first: a crash in between must not lose both.
  RETURN_IF_ERROR(SyncDirectory(target.fd.get()));
  return SyncDirectory(source.fd.get());
}

absl::StatusOr<DirectoryEntry> Directory::Stat(std::string_view name) const {
  ASSIGN_OR_RETURN(const Parent parent, OpenParent(name));
  ASSIGN_OR_RETURN(const struct stat details, Look(parent.fd.get(), parent.leaf));
  return EntryOf(std::string(name), details);
}

absl::StatusOr<std::vector<DirectoryEntry>> Directory::List() const {
  UniqueFd fd = OpenBeneath(fd_.get(), ".", O_RDONLY | O_DIRECTORY);
  if (!fd.valid()) return Failed(errno, "open of the directory");
  const std::unique_ptr<DIR, int (*)(DIR*)> stream(fdopendir(fd.get()), &closedir);
  if (stream == nullptr) return Failed(errno, "fdopendir");
  static_cast<void>(fd.Release());  // the stream's now
  std::vector<DirectoryEntry> entries;
  while (true) {
    errno = 0;
    const dirent* found = readdir(stream.get());
    if (found == nullptr) break;
    struct stat details;
    if (fstatat(fd_.get(), found->d_name, &details, AT_SYMLINK_NOFOLLOW) != 0) continue;
    if (IsImageFile(details)) entries.push_back(EntryOf(found->d_name, details));
  }
  if (errno != 0) return Failed(errno, "readdir");
  std::sort(entries.begin(), entries.end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
  return entries;
}

absl::Status Directory::Sync() const { return SyncDirectory(fd_.get()); }

absl::Status SetFileUid(int fd, std::string_view uid) {
  if (uid.empty() || uid.size() > kMaxAttribute) {
    return absl::InvalidArgumentError("a file's uid has 1 to 255 bytes");
  }
  return SetAttribute(fd, kUidAttribute, uid);
}

void ClearFileUid(int fd) { static_cast<void>(fremovexattr(fd, kUidAttribute)); }

absl::StatusOr<std::optional<std::string>> GetFileUid(int fd) {
  return GetAttribute(fd, kUidAttribute);
}

absl::Status SetFileSource(int fd, std::string_view source) {
  CHECK_LE(source.size(), kMaxAttribute);
  return SetAttribute(fd, kSourceAttribute, source);
}

void ClearFileSource(int fd) { static_cast<void>(fremovexattr(fd, kSourceAttribute)); }

absl::StatusOr<std::optional<std::string>> GetFileSource(int fd) {
  return GetAttribute(fd, kSourceAttribute);
}

}  // namespace gabion::io
