// From what the engine observes to what watches tell.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "engine/base/log.h"
#include "engine/engine.h"
#include "service/domain/connection_inbox.h"
#include "service/store/metadata_store.h"

namespace gabion::service {

struct ObserverOptions {
  std::chrono::milliseconds gather{20};    // what comes within this is one commit
  std::chrono::milliseconds retry{1'000};  // after an error
  std::size_t max_events = 4'096;          // that wait; more: the engine is asked for all
  // Called on the observer's thread with an export whose connections have changed, once that is
  // written. May be empty.
  std::function<void(const std::string& export_name)> changed;
};

// Writes a row for every connection, as it was when it began, removes it when it has ended, and
// touches the export, all in the order in which it happened: that is what makes connections, which
// are observed and not wanted, part of the change log. Writing is on a thread of its own, so that
// the engine never waits. Owned by the domain; any thread.
class ConnectionObserver {
 public:
  // All of them outlive this.
  ConnectionObserver(engine::Engine& engine, MetadataStore& store, Logger& logger,
                     ObserverOptions options);
  // As Stop().
  ~ConnectionObserver();
  ConnectionObserver(const ConnectionObserver&) = delete;
  ConnectionObserver& operator=(const ConnectionObserver&) = delete;

  // Where the engine's observer tells what happens; it may keep it for longer than this lives.
  std::shared_ptr<ConnectionInbox> inbox() const { return inbox_; }

  // Removes the rows that the last run left, whose clients are gone, and begins to write. Call
  // once, before the first export is served and before anybody watches.
  absl::Status Start();
  // Writes nothing more. Rows stay: the next start removes them.
  void Stop();

 private:
  void Loop();
  absl::Status Write(const std::vector<ConnectionEvent>& events);
  // Makes the rows what the engine says.
  absl::Status Resync();
  absl::Status RemoveLeftovers();
  // Names of all exports that have or can have connections.
  absl::StatusOr<std::set<std::string>> Exports() const;
  // `steps` and the touches of their exports, in commits of bounded size.
  absl::Status Commit(std::vector<Mutation> steps);

  engine::Engine& engine_;
  MetadataStore& store_;
  Logger& logger_;
  const ObserverOptions options_;
  const std::shared_ptr<ConnectionInbox> inbox_;
  std::set<std::string> rows_;  // names of connections that have one; of thread_
  std::thread thread_;
};

}  // namespace gabion::service
