// What the engine tells of connections, on its way to the store.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "engine/engine.h"

namespace gabion::service {

// A connection has come, or gone.
struct ConnectionEvent {
  std::string export_name;  // exports/{export}
  uint64_t id = 0;
  std::optional<engine::ConnectionState> state;  // unset: it has gone
};

// A bounded queue: what does not fit is dropped with all the rest, and who takes learns that he has
// to ask the engine instead. Shared by the engine's observer, which may live longer, and by whoever
// writes the rows; any thread. Connected() and Disconnected() do not block.
class ConnectionInbox {
 public:
  // What has come since the last one.
  struct Batch {
    std::vector<ConnectionEvent> events;  // in their order
    bool overflowed = false;              // there were more: these are none
    bool closed = false;
  };

  explicit ConnectionInbox(std::size_t max_events) : max_events_(max_events) {}

  void Connected(const std::string& export_name, const engine::ConnectionState& state);
  void Disconnected(const std::string& export_name, uint64_t id);

  // Waits until something comes, then for `gather`, so that what comes together is taken together.
  Batch Take(std::chrono::milliseconds gather);
  // Waits for `time` or until it is closed, whatever comes, and takes what is there then.
  Batch TakeAfter(std::chrono::milliseconds time);
  // From now on everything is dropped, and nobody waits.
  void Close();

 private:
  void Push(ConnectionEvent event);
  Batch TakeNow();  // under the lock

  const std::size_t max_events_;
  std::mutex mutex_;
  std::condition_variable changed_;
  Batch next_;
};

}  // namespace gabion::service
