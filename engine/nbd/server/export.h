// An export on its shard: what its clients are told, the disk that they see, and their sessions.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "engine/block/block_sizes.h"
#include "engine/block/node.h"
#include "engine/block/tail_node.h"
#include "engine/nbd/protocol/export_info.h"
#include "engine/nbd/server/session.h"
#include "engine/runtime/task_set.h"
#include "engine/runtime/turnstile.h"

namespace gabion::nbd {

// One version of an export. Connections keep the version that they negotiated; new ones get the
// current one.
struct ExportVersion {
  uint64_t id = 0;          // unique in the engine
  uint64_t generation = 0;  // of the export's resource
  ExportInfo info;
  block::EffectiveBlockSizes effective;
  block::Node* root = nullptr;            // what requests go to
  std::unique_ptr<block::TailNode> tail;  // is `root` where the export's size is not the disk's
  bool disk_writable = false;             // whatever the export allows
  uint32_t sessions = 0;
  uint32_t looks = 0;  // of others than clients, which need its nodes
};

// A connection for people and the API.
struct SessionReport {
  uint64_t id = 0;
  const Session* session = nullptr;
  int64_t connect_time_us = 0;  // since the epoch of the wall clock
  uint64_t generation = 0;
};

// Owned by its shard's server; used on the shard. Close() must be done before it is destroyed.
class Export {
 public:
  Export(const SessionEnvironment& environment, const SessionLimits& limits);
  ~Export();
  Export(const Export&) = delete;
  Export& operator=(const Export&) = delete;

  const ExportVersion& current() const { return *versions_.back(); }
  std::size_t sessions() const { return sessions_.size(); }

  // New connections get `version` from now on. Older versions live as long as their sessions; the
  // last few a little longer, for clients that were told them and are on their way.
  void Publish(std::unique_ptr<ExportVersion> version);

  // The disk below has become longer, or is another one: tells the nodes of every version.
  void RefreshVersions();

  // Holds requests back until none is in flight, calls `change`, and lets them go on. False if they
  // were not done within `timeout`: nothing was called.
  Task<bool> WhileQuiet(runtime::Duration timeout, absl::FunctionRef<void()> change);

  // Connections whose version `is_unfit` says of.
  std::vector<uint64_t> SessionsOf(absl::FunctionRef<bool(const ExportVersion&)> is_unfit) const;
  // Forgets such versions, but the current one. REQUIRES: nobody uses them.
  void ForgetVersions(absl::FunctionRef<bool(const ExportVersion&)> is_unfit);

  // For requests of others than clients: passed before the disk is touched, and the version that is
  // kept until Unpin().
  runtime::Turnstile& gate() { return gate_; }
  ExportVersion* Pin() {
    ++versions_.back()->looks;
    return versions_.back().get();
  }
  void Unpin(ExportVersion* version);

  // Refuses writes of every connection from now on; done when no write is in flight any more.
  Task<void> MakeReadOnly();

  // Takes over a connection that has negotiated version `version_id` and serves it. Refused, with
  // `stream` closed, if that version is long gone, or the export is closing.
  absl::Status Admit(uint64_t version_id, uint64_t connection_id, int64_t connect_time_us,
                     Negotiated negotiated, std::string leftover,
                     std::unique_ptr<io::Stream> stream);

  std::vector<SessionReport> Sessions() const;
  // False if there is no such connection.
  bool CloseSession(uint64_t connection_id);

  // Ends every connection after what is in flight, and admits none from now on. Close() does so
  // too, and waits until they have ended.
  void BeginClose();
  Task<void> Close();
  // Like Close(), but tells the clients first: see Session::BeginShutdown().
  Task<void> Shutdown();

  // Called on the shard for every connection that has been admitted, before its first request is
  // looked at, and when it has ended.
  class Observer {
   public:
    virtual void OnConnectionBegun(const SessionReport& report) = 0;
    virtual void OnConnectionEnded(uint64_t connection_id) = 0;

   protected:
    ~Observer() = default;
  };
  void SetObserver(Observer* observer) { observer_ = observer; }

 private:
  struct Entry {
    uint64_t id = 0;
    int64_t connect_time_us = 0;
    ExportVersion* version = nullptr;
    std::unique_ptr<Session> session;
  };

  static SessionReport ReportOf(const Entry& entry);
  Task<void> Serve(Entry* entry, std::string leftover);
  void DropUnusedVersions();
  ExportVersion* FindVersion(uint64_t id);

  const SessionEnvironment environment_;
  const SessionLimits limits_;
  runtime::Turnstile gate_;
  std::vector<std::unique_ptr<ExportVersion>> versions_;  // the last one is current
  std::vector<std::unique_ptr<Entry>> sessions_;
  runtime::TaskSet serving_;
  Observer* observer_ = nullptr;
  bool closing_ = false;
};

}  // namespace gabion::nbd
