// The directory of a pool: names that come from outside are opened beneath it and nowhere else.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/base/units.h"
#include "engine/io/unique_fd.h"

namespace gabion::io {

struct DirectoryEntry {
  std::string name;
  ByteCount size;       // of a regular file; 0 for a block device
  ByteCount allocated;  // space in use
  bool block_device = false;
};

// What the file system of a directory has to offer.
struct DirectorySpace {
  ByteCount size;
  ByteCount available;  // to this process
  bool punch_holes = false;
  bool direct_io = false;
};

// Opened once; a later rename of its path, or a symbolic link put in its place, changes nothing.
// A name is relative, of components divided by '/', none of them "." or "..". Symbolic links are
// followed nowhere; what is neither a regular file nor a block device is never opened.
// Errors: kPermissionDenied PATH_OUTSIDE_POOL for names that try to, also for
// symbolic links; kInvalidArgument for what is no name at all, or the name of something that cannot
// be an image. No message contains a path.
//
// Every call may block on the disk: callers run them on a worker. Calls may run concurrently, on
// any threads.
class Directory {
 public:
  struct OpenOptions {
    bool writable = false;
    bool direct = false;  // O_DIRECT; kUnimplemented where the file system has none
  };

  // `path` is the operator's own and may lead through symbolic links.
  static absl::StatusOr<Directory> Open(const std::string& path);

  // A regular file or a block device.
  absl::StatusOr<UniqueFd> Open(std::string_view name, OpenOptions options) const;
  // A new, empty file, opened for reading and writing; kAlreadyExists if anything has the name. Its
  // name is on stable storage when this returns.
  absl::StatusOr<UniqueFd> Create(std::string_view name, mode_t mode = 0600) const;
  // An empty file without a name, which goes when it is closed; kUnimplemented where the file
  // system has none.
  absl::StatusOr<UniqueFd> CreateUnnamed() const;
  // Regular files only; durable, as everything below that changes names.
  absl::Status Unlink(std::string_view name) const;
  // kAlreadyExists if `to` exists. Regular files only.
  absl::Status Rename(std::string_view from, std::string_view to) const;
  absl::StatusOr<DirectoryEntry> Stat(std::string_view name) const;
  // The regular files and block devices of the directory itself, sorted by name; not of
  // directories below.
  absl::StatusOr<std::vector<DirectoryEntry>> List() const;
  absl::Status Sync() const;
  // Tries punching and direct I/O on a file without a name.
  absl::StatusOr<DirectorySpace> Space() const;

 private:
  struct Parent {
    UniqueFd fd;
    std::string leaf;
  };

  explicit Directory(UniqueFd fd) : fd_(std::move(fd)) {}
  absl::StatusOr<Parent> OpenParent(std::string_view name) const;

  UniqueFd fd_;
};

// The image's identity, kept with the file (extended attribute user.gabion.uid), so that a file
// that was exchanged behind our back is noticed. kUnimplemented where the file system has no such
// attributes; nothing if the file has none.
absl::Status SetFileUid(int fd, std::string_view uid);
void ClearFileUid(int fd);
absl::StatusOr<std::optional<std::string>> GetFileUid(int fd);

// What a file that is not complete is made of, kept in the same way (user.gabion.source).
absl::Status SetFileSource(int fd, std::string_view source);
void ClearFileSource(int fd);
absl::StatusOr<std::optional<std::string>> GetFileSource(int fd);

}  // namespace gabion::io
