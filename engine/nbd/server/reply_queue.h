// Replies on their way to one client. Everything that becomes ready in a turn of the loop leaves
// with one gathering send.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "engine/base/units.h"
#include "engine/io/stream.h"
#include "engine/runtime/buffer_pool.h"
#include "engine/runtime/event.h"
#include "engine/runtime/reactor.h"
#include "engine/runtime/task.h"

namespace gabion::nbd {

// One reply, or a part of one. `pieces` are sent in order; they point into `head`, `heads` and
// `payload`, or at constants.
struct Reply {
  std::array<std::byte, 64> head;  // room for the headers of the common replies
  runtime::Buffer heads;           // headers of replies that need more
  runtime::Buffer payload;
  absl::InlinedVector<Bytes, 3> pieces;
  uint64_t held_bytes = 0;  // of the connection's budget, given back when sent
  bool completes = false;   // the last part: a request is finished when it has been sent
};

// Owned by a session; used on its shard. Must be idle() when destroyed: co_await Drain() first.
class ReplyQueue final : private runtime::TurnHook {
 public:
  // Told on the shard, never from within Append() or Push().
  class Owner {
   public:
    virtual void OnReplySent(uint64_t held_bytes, bool completes) = 0;
    // Once. Later replies are dropped, but reported as sent all the same.
    virtual void OnSendFailed(const absl::Status& status) = 0;

   protected:
    ~Owner() = default;
  };

  ReplyQueue(runtime::Reactor& reactor, io::Stream& stream, Owner& owner);
  ~ReplyQueue();

  // A reply to fill in, which must be pushed before the next one is made. Its address is stable
  // until it is sent.
  Reply& New();
  void Push(Reply& reply);

  bool idle() const { return waiting_.empty() && sending_.empty() && !hook_waits_; }
  // Waits until everything that was pushed before this call has been sent or dropped.
  Task<void> DrainPushed();
  // Waits until nothing is left to be sent, including what is pushed meanwhile.
  Task<void> Drain();

 private:
  void OnTurnEnd() override;
  Task<void> Send();
  void Recycle();

  runtime::Reactor& reactor_;
  io::Stream& stream_;
  Owner& owner_;
  runtime::Signal progress_;  // replies were sent, or the last of them was
  std::vector<std::unique_ptr<Reply>> waiting_;
  std::vector<std::unique_ptr<Reply>> sending_;
  std::vector<std::unique_ptr<Reply>> free_;
  std::unique_ptr<Reply> filling_;
  std::vector<Bytes> pieces_;  // of sending_
  Task<void> send_;
  uint64_t pushed_ = 0;  // replies, ever
  uint64_t finished_ = 0;
  bool hook_waits_ = false;
  bool failed_ = false;
};

}  // namespace gabion::nbd
