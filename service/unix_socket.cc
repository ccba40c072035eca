#include "service/unix_socket.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"

namespace gabion::service {
namespace {

absl::Status Failed(absl::string_view what, const std::string& path, int error) {
  return absl::ErrnoToStatus(error, absl::StrCat("Cannot ", what, " ", path));
}

// Whether a process accepts connections at `address`; an error if that cannot be told.
absl::Status CheckNobodyListens(const sockaddr_un& address, const std::string& path) {
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return Failed("make a socket to try", path, errno);
  const absl::Cleanup close_fd = [fd] { close(fd); };
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0 ||
      errno == EAGAIN) {  // its queue is full
    return absl::AlreadyExistsError(absl::StrCat("Another process listens on ", path, " already."));
  }
  if (errno == ECONNREFUSED || errno == ENOENT) return absl::OkStatus();
  return Failed("find out whether somebody listens on", path, errno);
}

}  // namespace

absl::Status PrepareUnixSocket(const std::string& path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) {
    return absl::InvalidArgumentError(absl::StrCat("The socket's path ", path, " has ", path.size(),
                                                   " bytes; at most ", sizeof(address.sun_path) - 1,
                                                   " fit."));
  }
  std::memcpy(address.sun_path, path.data(), path.size());

  struct stat status;
  if (lstat(path.c_str(), &status) != 0) {
    return errno == ENOENT ? absl::OkStatus() : Failed("look at", path, errno);
  }
  if (!S_ISSOCK(status.st_mode)) {
    return absl::AlreadyExistsError(
        absl::StrCat("There is something at ", path, " that is not a socket."));
  }
  const absl::Status free = CheckNobodyListens(address, path);
  if (!free.ok()) return free;
  if (unlink(path.c_str()) != 0 && errno != ENOENT) return Failed("remove", path, errno);
  return absl::OkStatus();
}

}  // namespace gabion::service
