#include "engine/runtime/mailbox.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cstdint>
#include <utility>

#include "engine/base/check.h"

namespace gabion::runtime {
namespace {

int NewEventFd() {
  const int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  CHECK_GE(fd, 0);  // only out of descriptors at start-up, before anything is served
  return fd;
}

}  // namespace

Mailbox::Mailbox(Reactor& reactor) : reactor_(reactor), event_fd_(NewEventFd()) {
  reactor_.AddPoller(*this);
}

Mailbox::~Mailbox() {
  reactor_.RemovePoller(*this);
  close(event_fd_);
}

void Mailbox::Post(Message message) {
  {
    const std::lock_guard lock(mutex_);
    inbox_.push_back(std::move(message));
    filled_.store(true);
  }
  if (sleeping_.exchange(false)) {
    const uint64_t one = 1;
    // Fails only when the counter is full, and then the descriptor is readable anyway.
    [[maybe_unused]] const ssize_t written = write(event_fd_, &one, sizeof(one));
  }
}

bool Mailbox::PrepareToSleep() {
  // The order matters: announce the sleep, then look once more. A Post() after the look sees the
  // announcement.
  sleeping_.store(true);
  if (!filled_.load()) return true;
  sleeping_.store(false);
  return false;
}

bool Mailbox::Poll() {
  if (!filled_.load(std::memory_order_acquire)) return false;
  sleeping_.store(false);
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t got = read(event_fd_, &count, sizeof(count));
  {
    const std::lock_guard lock(mutex_);
    running_.swap(inbox_);
    filled_.store(false);
  }
  for (Message& message : running_) std::move(message)();
  running_.clear();
  return true;
}

}  // namespace gabion::runtime
