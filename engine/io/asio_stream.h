// Streams over sockets.
#pragma once

#include <memory>

#include "engine/io/stream.h"
#include "engine/io/unique_fd.h"
#include "engine/runtime/reactor.h"

namespace gabion::io {

// A stream over a connected Unix or TCP socket that nobody else uses, on the shard of `reactor`,
// which outlives it. Sets TCP_NODELAY, keep-alive, and the socket to non-blocking. No task may be
// in flight when the stream is destroyed; that closes the socket.
std::unique_ptr<Stream> NewAsioStream(runtime::Reactor& reactor, UniqueFd socket);

}  // namespace gabion::io
