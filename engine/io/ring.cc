#include "engine/io/ring.h"

#include <liburing.h>
#include <linux/fs.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "engine/base/check.h"
#include "engine/io/errno_status.h"

namespace gabion::io {
namespace {

constexpr uint64_t kMaxTransfer = kGiB;
constexpr unsigned kBatch = 64;

// Reaping happens on the submitting thread in every turn anyway, so the kernel need not interrupt
// it. Older kernels do not know the flags.
int Setup(unsigned entries, io_uring& ring) {
  const int refused =
      io_uring_queue_init(entries, &ring, IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG);
  return refused == -EINVAL ? io_uring_queue_init(entries, &ring, 0) : refused;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Ring>> Ring::Create(runtime::Reactor& reactor, Options options) {
  auto ring = std::make_unique<io_uring>();
  const int result = Setup(options.entries, *ring);
  if (result < 0) return ErrnoStatus(-result, "io_uring_setup");
  // Before this feature (Linux 5.5) completions could be dropped.
  if ((ring->features & IORING_FEAT_NODROP) == 0) {
    io_uring_queue_exit(ring.get());
    return ErrnoStatus(ENOSYS, "io_uring_setup");
  }
  return std::unique_ptr<Ring>(new Ring(reactor, std::move(ring)));
}

Ring::Ring(runtime::Reactor& reactor, std::unique_ptr<io_uring> ring)
    : reactor_(reactor),
      ring_(std::move(ring)),
      max_in_flight_(*ring_->cq.kring_entries),
      emptied_(reactor.ready()) {
  reactor_.AddPoller(*this);
}

Ring::~Ring() {
  CHECK_EQ(in_flight(), 0u);
  CHECK(!hook_asked_);
  reactor_.RemovePoller(*this);
  io_uring_queue_exit(ring_.get());
}

Ring::Operation Ring::Read(int fd, MutableBytes dst, ByteOffset offset) {
  return Operation(*this, {.kind = Kind::kRead,
                           .fd = fd,
                           .memory = dst.data(),
                           .length = std::min<uint64_t>(dst.size(), kMaxTransfer),
                           .offset = offset.value});
}

Ring::Operation Ring::Write(int fd, Bytes src, ByteOffset offset, bool durable) {
  return Operation(*this, {.kind = durable ? Kind::kDurableWrite : Kind::kWrite,
                           .fd = fd,
                           .memory = const_cast<std::byte*>(src.data()),
                           .length = std::min<uint64_t>(src.size(), kMaxTransfer),
                           .offset = offset.value});
}

Ring::Operation Ring::DataSync(int fd) {
  return Operation(*this, {.kind = Kind::kDataSync, .fd = fd});
}

Ring::Operation Ring::Allocate(int fd, int mode, ByteRange range) {
  return Operation(*this, {.kind = Kind::kAllocate,
                           .fd = fd,
                           .mode = mode,
                           .length = range.length.value,
                           .offset = range.offset.value});
}

Task<void> Ring::Close() {
  while (in_flight() > 0 || hook_asked_) co_await emptied_.Wait();
}

void Ring::Start(Operation& operation) {
  if (!waiting_.empty() || !Enqueue(operation)) waiting_.push_back(&operation);
}

bool Ring::Enqueue(Operation& operation) {
  if (in_flight_ == max_in_flight_) return false;
  io_uring_sqe* entry = io_uring_get_sqe(ring_.get());
  if (entry == nullptr) {
    Submit();
    entry = io_uring_get_sqe(ring_.get());
    if (entry == nullptr) return false;
  }
  const Call& call = operation.call_;
  const auto length = static_cast<unsigned>(std::min(call.length, kMaxTransfer));
  switch (call.kind) {
    case Kind::kRead:
      io_uring_prep_read(entry, call.fd, call.memory, length, call.offset);
      break;
    case Kind::kWrite:
    case Kind::kDurableWrite:
      io_uring_prep_write(entry, call.fd, call.memory, length, call.offset);
      if (call.kind == Kind::kDurableWrite) entry->rw_flags = RWF_DSYNC;
      break;
    case Kind::kDataSync:
      io_uring_prep_fsync(entry, call.fd, IORING_FSYNC_DATASYNC);
      break;
    case Kind::kAllocate:
      io_uring_prep_fallocate(entry, call.fd, call.mode, static_cast<off_t>(call.offset),
                              static_cast<off_t>(call.length));
      break;
  }
  io_uring_sqe_set_data(entry, &operation);
  ++in_flight_;
  AskForTurnEnd();
  return true;
}

void Ring::AskForTurnEnd() {
  if (std::exchange(hook_asked_, true)) return;
  reactor_.AtTurnEnd(*this);
}

void Ring::OnTurnEnd() {
  hook_asked_ = false;
  Submit();
  // What the kernel did not take now (it is short of memory, or stopped at a bad entry) is offered
  // again.
  if (io_uring_sq_ready(ring_.get()) > 0) AskForTurnEnd();
  if (in_flight() == 0) emptied_.WakeAll();
}

void Ring::Submit() {
  const int result = io_uring_submit(ring_.get());
  CHECK(result >= 0 || result == -EAGAIN || result == -EBUSY || result == -EINTR);
}

bool Ring::Poll() {
  if (in_flight_ == 0) return false;
  bool any = false;
  std::array<io_uring_cqe*, kBatch> batch;
  unsigned count;
  while ((count = io_uring_peek_batch_cqe(ring_.get(), batch.data(), kBatch)) > 0) {
    any = true;
    for (unsigned i = 0; i < count; ++i) {
      auto* operation = static_cast<Operation*>(io_uring_cqe_get_data(batch[i]));
      operation->result_ = batch[i]->res;
      reactor_.ready().Push(operation->waiter_);
    }
    io_uring_cq_advance(ring_.get(), count);
    in_flight_ -= count;
  }
  while (!waiting_.empty() && Enqueue(*waiting_.front())) waiting_.pop_front();
  if (in_flight() == 0 && !hook_asked_) emptied_.WakeAll();
  return any;
}

int Ring::wake_fd() const { return ring_->ring_fd; }

bool Ring::PrepareToSleep() { return io_uring_cq_ready(ring_.get()) == 0; }

}  // namespace gabion::io
