// One client's connection to an export, from the end of the handshake to the last reply.
//
// A turn of the loop: one recv brings as many requests as the socket holds; all complete ones are
// started before the next recv; all replies that are ready leave with one send. Requests run
// concurrently and are answered in the order in which they finish. What a client can hold is
// bounded: requests and bytes in flight count until their reply has been sent, so a client that
// does not read its replies stops being read.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "engine/base/log.h"
#include "engine/block/node.h"
#include "engine/io/stream.h"
#include "engine/nbd/protocol/handshake.h"
#include "engine/nbd/protocol/request.h"
#include "engine/nbd/server/budget.h"
#include "engine/nbd/server/read_reply.h"
#include "engine/nbd/server/reply_queue.h"
#include "engine/nbd/server/status_reply.h"
#include "engine/runtime/buffer_pool.h"
#include "engine/runtime/event.h"
#include "engine/runtime/reactor.h"
#include "engine/runtime/task_set.h"
#include "engine/runtime/turnstile.h"

namespace gabion::nbd {

// What every session of a shard shares; outlives them.
struct SessionEnvironment {
  runtime::Reactor& reactor;
  runtime::BufferPool& buffers;
  ByteBudget& budget;
  Logger& logger;
};

struct SessionLimits {
  uint32_t max_requests_in_flight = 128;
  uint64_t max_bytes_in_flight = 64 * kMiB;
  uint32_t max_descriptors = 131072;  // per BLOCK_STATUS context; at most kMaxDescriptors
  // How long the client of a closing connection may leave replies that wait for it untouched.
  runtime::Duration close_timeout = std::chrono::seconds(5);
  // How long a connection that is shut down still answers requests, so that its client learns why.
  runtime::Duration shutdown_time = std::chrono::milliseconds(500);
};

// How the export treats this connection, resolved from its policy when the connection was admitted.
struct SessionPolicy {
  uint32_t granule = 1;             // the advertised minimum: replies are aligned to it
  uint32_t required_alignment = 1;  // of requests; 1: anything is served
  bool disconnect_violators = false;
  uint32_t violation_budget = 0;  // misaligned requests that are forgiven before hanging up
};

struct SessionStats {
  uint64_t unaligned_requests = 0;  // not aligned to the advertised minimum, served or not
  uint64_t rejected_requests = 0;
};

// Owned by its export; used on its shard.
class Session final : private ReplyQueue::Owner {
 public:
  // `root` and `gate` outlive the session. `gate` is passed by every request that touches `root`.
  // Bytes of `root` past its content_size are padding.
  Session(const SessionEnvironment& environment, const SessionLimits& limits,
          const SessionPolicy& policy, Negotiated negotiated, block::Node& root,
          runtime::Turnstile& gate, std::unique_ptr<io::Stream> stream);
  ~Session();

  // Serves until either side ends it. `leftover`: bytes that arrived behind the handshake. Call
  // once; the session may be destroyed when the task is done.
  Task<void> Run(std::string leftover);

  // Stops reading; what is in flight is finished and answered, then Run() ends.
  void Close();

  // Answers every request that comes from now on with NBD_ESHUTDOWN, and closes when the client has
  // had time to ask, or leaves.
  void BeginShutdown();

  // From now on write commands are refused, whatever was negotiated.
  void SetReadOnly();

  const Negotiated& negotiated() const { return negotiated_; }
  const SessionStats& stats() const { return stats_; }
  const std::string& peer() const { return stream_->peer(); }
  const SessionPolicy& policy() const { return policy_; }

 private:
  class CloseTimer;
  class ShutdownTimer;

  // ReplyQueue::Owner
  void OnReplySent(uint64_t held_bytes, bool completes) override;
  void OnSendFailed(const absl::Status& status) override;

  // session.cc: from bytes to requests. False: the connection is over.
  Task<bool> Receive();
  Task<bool> StartReceivedRequests();
  Verdict Judge(const Request& request) const;
  void Count(const Request& request, const Verdict& verdict);
  uint64_t HeldBytes(const Request& request, const Verdict& verdict) const;
  bool HasRoom(uint64_t bytes) const;
  Task<bool> WaitForRoom(uint64_t held);
  bool StartAtOnce(const Request& request, const Verdict& verdict);
  Task<bool> StartWhenPossible(Request request, Verdict verdict);
  Task<bool> ReceivePayload(MutableBytes into);
  Task<bool> DiscardPayload(uint64_t length);
  bool Refuse(const Request& request, const Verdict& verdict);
  void Start(const Request& request, runtime::Buffer payload, uint64_t held);

  // session_requests.cc: one coroutine per command.
  bool RefuseWrite(const Request& request, uint64_t held);
  Task<void> ServeRead(Request request, uint64_t held);
  Task<void> ServeLongRead(Request request, uint64_t held);
  Task<void> ServeWrite(Request request, runtime::Buffer payload, uint64_t held);
  Task<void> ServeZeroes(Request request);
  Task<void> ServeTrim(Request request);
  Task<void> ServeFlush(Request request);
  Task<void> ServeCache(Request request);
  Task<void> ServeBlockStatus(Request request, uint64_t held);

  // session_replies.cc
  void ReplyDone(const Request& request, const absl::Status& status, uint64_t held);
  void ReplyError(const Request& request, ErrorCode error, std::string_view message, uint64_t held);
  void ReplyData(const Request& request, ByteRange range, runtime::Buffer data, bool last,
                 uint64_t held);
  void AppendReadChunks(Reply& reply, const Request& request, ByteRange range, bool last);
  void ReplyStatus(const Request& request, const StatusPlan& plan, uint64_t held);

  const SessionEnvironment environment_;
  const SessionLimits limits_;
  const SessionPolicy policy_;
  const Negotiated negotiated_;
  SessionTraits traits_;
  std::vector<block::MergeOperator> operators_;  // of the selected contexts, in their order
  block::Node& root_;
  runtime::Turnstile& gate_;
  const std::unique_ptr<io::Stream> stream_;

  std::vector<std::byte> received_;  // what has arrived
  std::size_t begin_ = 0;            // received_[begin_, end_) has not been used yet
  std::size_t end_ = 0;

  ReplyQueue replies_;
  runtime::TaskSet requests_;
  runtime::Signal freed_;  // a slot or bytes came back
  uint32_t in_flight_ = 0;
  uint64_t bytes_in_flight_ = 0;
  uint64_t replies_sent_ = 0;
  std::unique_ptr<CloseTimer> close_timer_;
  std::unique_ptr<ShutdownTimer> shutdown_timer_;  // not null: being shut down
  bool closing_ = false;
  bool expect_long_payload_ = false;
  bool broken_ = false;                        // nothing can be sent any more
  std::vector<ReadChunk> chunks_;              // scratch of one call
  std::vector<StatusDescriptor> descriptors_;  // scratch of one call
  uint64_t violations_ = 0;
  SessionStats stats_;
};

}  // namespace gabion::nbd
