// Sockets that listen: binding, and who owns the name of a Unix socket.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "engine/io/unique_fd.h"

namespace gabion::io {

// A bound, listening, non-blocking socket. Any thread. Destroying it closes the socket; that of a
// Unix socket also removes its name.
class ListenSocket {
 public:
  // Binds `path` with permissions `mode`. The socket file of a server that is gone is replaced; a
  // living server's is not: kAlreadyExists. `path`.lock is kept locked meanwhile, so that of two
  // servers that start together only one gets the name.
  static absl::StatusOr<ListenSocket> Unix(const std::string& path, mode_t mode);
  // Resolves `host` (may wait for a name server; empty: all interfaces) and binds its first usable
  // address; port 0: the kernel chooses.
  static absl::StatusOr<ListenSocket> Tcp(const std::string& host, uint16_t port);

  ListenSocket(ListenSocket&& other) noexcept = default;
  ListenSocket& operator=(ListenSocket&&) = delete;
  ~ListenSocket();

  int fd() const { return fd_.get(); }
  // "unix:/run/gabion/nbd.sock" or "127.0.0.1:10809".
  const std::string& address() const { return address_; }

 private:
  ListenSocket(UniqueFd fd, std::string address)
      : fd_(std::move(fd)), address_(std::move(address)) {}

  UniqueFd fd_;
  std::string address_;
  std::string path_;  // of a Unix socket
  UniqueFd lock_;
};

}  // namespace gabion::io
