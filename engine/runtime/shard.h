// A shard: one thread with its event loop. Whatever is created on a shard is used on it and
// destroyed on it.
#pragma once

#include <string>
#include <thread>

#include "engine/runtime/buffer_pool.h"
#include "engine/runtime/mailbox.h"
#include "engine/runtime/reactor.h"

namespace gabion::runtime {

// Owned by the engine; Post() from any thread, the rest on the shard's own thread unless it says
// otherwise.
class Shard {
 public:
  struct Options {
    Reactor::Options reactor;
    ByteCount cached_buffers{64 * kMiB};
  };

  // Starts the thread, named `name` (at most 15 characters).
  Shard(std::string name, Options options);
  // Stop() has been called.
  ~Shard();
  Shard(const Shard&) = delete;
  Shard& operator=(const Shard&) = delete;

  Reactor& reactor() { return reactor_; }
  BufferPool& buffers() { return buffers_; }

  // Any thread. `message` runs on the shard, in the order of posting by one thread.
  void Post(Mailbox::Message message) { mailbox_.Post(std::move(message)); }

  // Any thread but the shard's; once. Whatever lives on the shard must have been closed before.
  // Waits for the thread.
  void Stop();

 private:
  Reactor reactor_;
  BufferPool buffers_;
  Mailbox mailbox_;
  std::thread thread_;
};

}  // namespace gabion::runtime
