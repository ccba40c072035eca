// Bounds on what clients can make a server hold.
#pragma once

#include <atomic>
#include <cstdint>

#include "engine/base/check.h"
#include "engine/runtime/event.h"

namespace gabion::nbd {

// Payload bytes of all connections of one shard. Owned by the shard's server; used on the shard.
class ByteBudget {
 public:
  ByteBudget(runtime::ReadyQueue& ready, uint64_t limit) : limit_(limit), freed_(ready) {}

  // False if `bytes` do not fit now; something larger than the whole budget is let in alone.
  bool TryTake(uint64_t bytes) {
    if (used_ > 0 && used_ + bytes > limit_) return false;
    used_ += bytes;
    return true;
  }
  void Give(uint64_t bytes) {
    CHECK_GE(used_, bytes);
    used_ -= bytes;
    if (bytes > 0) freed_.WakeAll();
  }

  // co_await budget.Changed(): then bytes have come back, or somebody has called Nudge(). Who waits
  // for bytes also looks out for the end of its own connection, since those who hold the bytes may
  // hold them for as long as they like.
  auto Changed() { return freed_.Wait(); }
  void Nudge() { freed_.WakeAll(); }

  uint64_t used() const { return used_; }

 private:
  const uint64_t limit_;
  uint64_t used_ = 0;
  runtime::Signal freed_;
};

// Connections of the whole server, handshakes included. Any thread.
class ConnectionSlots {
 public:
  explicit ConnectionSlots(uint32_t limit) : limit_(limit) {}

  // False if the server is full.
  bool Take() {
    if (used_.fetch_add(1) < limit_) return true;
    used_.fetch_sub(1);
    return false;
  }
  void Give() { used_.fetch_sub(1); }
  uint32_t used() const { return used_.load(); }

 private:
  const uint32_t limit_;
  std::atomic<uint32_t> used_ = 0;
};

}  // namespace gabion::nbd
