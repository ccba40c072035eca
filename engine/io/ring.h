// The shard's io_uring: many file operations in flight, one system call per turn to submit them.
#pragma once

#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>

#include "absl/status/statusor.h"
#include "engine/base/units.h"
#include "engine/runtime/event.h"
#include "engine/runtime/reactor.h"
#include "engine/runtime/task.h"

struct io_uring;

namespace gabion::io {

// Owned by the shard and outlived by its reactor. Create() on any thread, everything else on the
// shard; Close() comes before destruction. Any number of operations may be started: what does not
// fit waits in order, so the completion queue never overflows.
class Ring final : public runtime::Poller, private runtime::TurnHook {
 public:
  struct Options {
    unsigned entries = 256;  // of the submission queue; twice as many may be in flight
  };

  // An error where the host refuses io_uring (kPermissionDenied, kUnimplemented, ...): the caller
  // falls back to PoolFile.
  static absl::StatusOr<std::unique_ptr<Ring>> Create(runtime::Reactor& reactor, Options options);
  ~Ring();
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  enum class Kind : uint8_t { kRead, kWrite, kDurableWrite, kDataSync, kAllocate };
  struct Call {
    Kind kind;
    int fd;
    int mode = 0;
    std::byte* memory = nullptr;
    uint64_t length = 0;
    uint64_t offset = 0;
  };

  // One operation: `const int result = co_await ring.Read(...)` gives the number of bytes, or 0,
  // or a negative errno. It starts when it is awaited and lives in the awaiting frame.
  class [[nodiscard]] Operation {
   public:
    Operation(Ring& ring, const Call& call) : ring_(ring), call_(call) {}
    Operation(const Operation&) = delete;
    Operation& operator=(const Operation&) = delete;
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> waiter) {
      waiter_ = waiter;
      ring_.Start(*this);
    }
    int await_resume() const noexcept { return result_; }

   private:
    friend class Ring;
    Ring& ring_;
    const Call call_;
    int result_ = 0;
    std::coroutine_handle<> waiter_;
  };

  // At most 1 GiB is read or written by one operation; fewer bytes than asked for are possible.
  Operation Read(int fd, MutableBytes dst, ByteOffset offset);
  // `durable`: as if opened with O_DSYNC.
  Operation Write(int fd, Bytes src, ByteOffset offset, bool durable);
  Operation DataSync(int fd);
  // fallocate(2) with `mode`.
  Operation Allocate(int fd, int mode, ByteRange range);

  // Waits for everything in flight.
  Task<void> Close();

  std::size_t in_flight() const { return in_flight_ + waiting_.size(); }

  bool Poll() override;
  int wake_fd() const override;
  bool PrepareToSleep() override;

 private:
  Ring(runtime::Reactor& reactor, std::unique_ptr<io_uring> ring);

  void OnTurnEnd() override;
  void Start(Operation& operation);
  // False if there is no room now.
  bool Enqueue(Operation& operation);
  void Submit();
  void AskForTurnEnd();

  runtime::Reactor& reactor_;
  const std::unique_ptr<io_uring> ring_;
  const std::size_t max_in_flight_;
  std::size_t in_flight_ = 0;  // in the submission queue or in the kernel
  std::deque<Operation*> waiting_;
  runtime::Signal emptied_;
  bool hook_asked_ = false;
};

}  // namespace gabion::io
