#include "engine/io/listen_socket.h"

#include <fcntl.h>
#include <netdb.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/io/errno_status.h"
#include "engine/io/socket_address.h"

namespace gabion::io {
namespace {

constexpr int kSocketFlags = SOCK_CLOEXEC | SOCK_NONBLOCK;

absl::Status InUse(const std::string& path) {
  return absl::AlreadyExistsError(absl::StrCat("another server is listening on ", path));
}

absl::StatusOr<sockaddr_un> UnixAddress(const std::string& path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the path of a Unix socket has 1 to 107 bytes, this one has ", path.size(), ": ", path));
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

const sockaddr* Generic(const sockaddr_un& address) {
  return reinterpret_cast<const sockaddr*>(&address);
}

// The lock of the name `path`, held as long as the descriptor is open.
absl::StatusOr<UniqueFd> LockName(const std::string& path) {
  UniqueFd lock(open((path + ".lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!lock.valid()) return ErrnoStatus(errno, absl::StrCat("open of ", path, ".lock"));
  if (flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) return InUse(path);
    return ErrnoStatus(errno, absl::StrCat("lock of ", path, ".lock"));
  }
  return lock;
}

// Removes what a dead server left. Whoever answers, or might, is left alone.
absl::Status RemoveStale(const std::string& path, const sockaddr_un& address) {
  struct stat details;
  if (lstat(path.c_str(), &details) != 0) {
    if (errno == ENOENT) return absl::OkStatus();
    return ErrnoStatus(errno, absl::StrCat("stat of ", path));
  }
  if (!S_ISSOCK(details.st_mode)) {
    return absl::AlreadyExistsError(absl::StrCat(path, " exists and is no socket"));
  }
  const UniqueFd probe(socket(AF_UNIX, SOCK_STREAM | kSocketFlags, 0));
  if (!probe.valid()) return ErrnoStatus(errno, "socket");
  if (connect(probe.get(), Generic(address), sizeof(address)) == 0) return InUse(path);
  if (errno != ECONNREFUSED) return InUse(path);
  if (unlink(path.c_str()) != 0) return ErrnoStatus(errno, absl::StrCat("unlink of ", path));
  return absl::OkStatus();
}

absl::StatusOr<UniqueFd> ListenOn(const addrinfo& address) {
  UniqueFd fd(socket(address.ai_family, address.ai_socktype | kSocketFlags, address.ai_protocol));
  if (!fd.valid()) return ErrnoStatus(errno, "socket");
  const int on = 1;
  if (setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0) {
    return ErrnoStatus(errno, "setsockopt(SO_REUSEADDR)");
  }
  if (bind(fd.get(), address.ai_addr, address.ai_addrlen) != 0) return ErrnoStatus(errno, "bind");
  if (listen(fd.get(), SOMAXCONN) != 0) return ErrnoStatus(errno, "listen");
  return fd;
}

}  // namespace

absl::StatusOr<ListenSocket> ListenSocket::Unix(const std::string& path, mode_t mode) {
  ASSIGN_OR_RETURN(const sockaddr_un address, UnixAddress(path));
  ASSIGN_OR_RETURN(UniqueFd lock, LockName(path));
  RETURN_IF_ERROR(RemoveStale(path, address));
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | kSocketFlags, 0));
  if (!fd.valid()) return ErrnoStatus(errno, "socket");
  // The mode of the unbound socket limits that of its name, so that nobody gets in before chmod().
  if (fchmod(fd.get(), mode) != 0) return ErrnoStatus(errno, "fchmod");
  if (bind(fd.get(), Generic(address), sizeof(address)) != 0) {
    return ErrnoStatus(errno, absl::StrCat("bind to ", path));
  }
  ListenSocket result(std::move(fd), absl::StrCat("unix:", path));
  result.path_ = path;
  result.lock_ = std::move(lock);
  if (chmod(path.c_str(), mode) != 0) return ErrnoStatus(errno, absl::StrCat("chmod of ", path));
  if (listen(result.fd(), SOMAXCONN) != 0) return ErrnoStatus(errno, "listen");
  return result;
}

absl::StatusOr<ListenSocket> ListenSocket::Tcp(const std::string& host, uint16_t port) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const std::string service = std::to_string(port);
  const int error =
      getaddrinfo(host.empty() ? nullptr : host.c_str(), service.c_str(), &hints, &found);
  if (error != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot resolve the host \"", host, "\": ", gai_strerror(error)));
  }
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> addresses(found, &freeaddrinfo);
  absl::Status status = absl::NotFoundError("no address");
  for (const addrinfo* address = found; address != nullptr; address = address->ai_next) {
    absl::StatusOr<UniqueFd> fd = ListenOn(*address);
    if (fd.ok()) {
      std::string name = LocalName(fd->get());
      return ListenSocket(std::move(fd).value(), std::move(name));
    }
    status = fd.status();
  }
  return absl::Status(status.code(), absl::StrCat("cannot listen on ", host, " port ", port, ": ",
                                                  status.message()));
}

ListenSocket::~ListenSocket() {
  // The lock is still held: the name is ours.
  if (fd_.valid() && !path_.empty()) unlink(path_.c_str());
}

}  // namespace gabion::io
