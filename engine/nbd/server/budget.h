// Bounds on what clients can make a server hold.
#pragma once

#include <atomic>
#include <cstdint>

#include "engine/base/check.h"
#include "engine/runtime/event.h"

namespace gabion::nbd {

// Payload bytes of all connections of one shard. Owned by the shard's server; used on the shard.
//
// A client may keep what it holds for as long as it likes, by not sending a payload or not taking
// replies. So that it cannot keep the others from being served, a part of the budget is not shared:
// the first `own` bytes of each connection are its own, and only what it holds beyond them counts
// against the `shared` bytes.
class ByteBudget {
 public:
  ByteBudget(runtime::ReadyQueue& ready, uint64_t shared, uint64_t own = 0)
      : shared_(shared), own_(own), freed_(ready) {}

  // `bytes` more for a connection that holds `held`. False if they do not fit now; something larger
  // than all shared bytes is let in alone.
  bool TryTake(uint64_t bytes, uint64_t held) {
    const uint64_t more = Beyond(held + bytes) - Beyond(held);
    if (more > 0 && shared_used_ > 0 && shared_used_ + more > shared_) return false;
    shared_used_ += more;
    used_ += bytes;
    return true;
  }
  // The reverse: the connection goes on to hold `held`.
  void Give(uint64_t bytes, uint64_t held) {
    const uint64_t less = Beyond(held + bytes) - Beyond(held);
    CHECK_GE(used_, bytes);
    CHECK_GE(shared_used_, less);
    shared_used_ -= less;
    used_ -= bytes;
    if (bytes > 0) freed_.WakeAll();  // own bytes may be what their connection waits for
  }

  // co_await budget.Changed(): then bytes have come back, or somebody has called Nudge(). Who waits
  // for bytes also looks out for the end of its own connection, since those who hold the bytes may
  // hold them for as long as they like.
  auto Changed() { return freed_.Wait(); }
  void Nudge() { freed_.WakeAll(); }

  uint64_t used() const { return used_; }

 private:
  uint64_t Beyond(uint64_t held) const { return held > own_ ? held - own_ : 0; }

  const uint64_t shared_;
  const uint64_t own_;
  uint64_t shared_used_ = 0;
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
