// Unix sockets as files: whether one may be bound where another may have been.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace gabion::service {

// Makes room at `path` for a socket: removes one that nobody listens on any more. Fails, with a
// sentence that names the path, if somebody does, if there is something else than a socket, or if
// the path is too long for one. Any thread.
absl::Status PrepareUnixSocket(const std::string& path);

}  // namespace gabion::service
