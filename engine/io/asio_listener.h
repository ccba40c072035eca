// Accepts connections.
#pragma once

#include <memory>
#include <string>

#include "engine/base/log.h"
#include "engine/io/listen_socket.h"
#include "engine/io/unique_fd.h"
#include "engine/runtime/reactor.h"
#include "engine/runtime/task.h"

namespace gabion::io {

// Lives on one shard, owned and outlived by its reactor's owner. Accepts from its creation until
// Stop(), which comes before destruction.
class Listener {
 public:
  // Takes connections. Called on the listener's shard; must not block. Nothing has been read yet:
  // the socket can be taken to any shard, where NewAsioStream() makes a stream of it.
  class Handler {
   public:
    virtual void OnConnection(UniqueFd socket) = 0;

   protected:
    ~Handler() = default;
  };

  virtual ~Listener() = default;
  virtual const std::string& address() const = 0;
  // Accepts no more, and lets go of the socket and its name. Once.
  virtual Task<void> Stop() = 0;
};

// `handler` and `logger` outlive the listener. When the process or the system is out of
// descriptors, says so and goes on after a pause.
std::unique_ptr<Listener> NewAsioListener(runtime::Reactor& reactor, ListenSocket socket,
                                          Listener::Handler& handler, Logger& logger);

}  // namespace gabion::io
