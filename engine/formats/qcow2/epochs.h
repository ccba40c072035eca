// Waiting for everybody who may still use what is being given up.
#pragma once

#include <cstdint>
#include <deque>
#include <utility>

#include "engine/base/check.h"
#include "engine/runtime/event.h"
#include "engine/runtime/ready_queue.h"
#include "engine/runtime/task.h"

namespace gabion::qcow2 {

// Operations are inside from their first look at the tables to their last access to the file. What
// was taken out of the tables may be used for something else when all who were inside at that
// moment have left: those that enter later cannot have seen it. Owned by a node, used on its shard.
class Epochs {
 public:
  // Being inside; leaves when destroyed.
  class [[nodiscard]] Pass {
   public:
    Pass(Epochs& epochs, uint64_t epoch) : epochs_(&epochs), epoch_(epoch) {}
    Pass(Pass&& other) noexcept
        : epochs_(std::exchange(other.epochs_, nullptr)), epoch_(other.epoch_) {}
    Pass& operator=(Pass&&) = delete;
    ~Pass() { Leave(); }
    void Leave() {
      if (epochs_ != nullptr) std::exchange(epochs_, nullptr)->Leave(epoch_);
    }

   private:
    Epochs* epochs_;
    uint64_t epoch_;
  };

  explicit Epochs(runtime::ReadyQueue& ready) : left_(ready) {}
  Epochs(const Epochs&) = delete;
  Epochs& operator=(const Epochs&) = delete;

  Pass Enter() {
    ++inside_.back();
    return Pass(*this, first_ + inside_.size() - 1);
  }

  // Waits until all who are inside now have left.
  Task<void> Quiesce() {
    if (inside_.size() == 1 && inside_.front() == 0) co_return;
    const uint64_t last = first_ + inside_.size() - 1;
    inside_.push_back(0);
    if (inside_.front() == 0) DropEmpty();
    while (first_ <= last) co_await left_.Wait();
  }

 private:
  void Leave(uint64_t epoch) {
    uint32_t& count = inside_[epoch - first_];
    CHECK_GT(count, 0u);
    if (--count > 0 || epoch != first_ || inside_.size() == 1) return;
    DropEmpty();
    left_.WakeAll();
  }
  void DropEmpty() {
    while (inside_.size() > 1 && inside_.front() == 0) {
      inside_.pop_front();
      ++first_;
    }
  }

  std::deque<uint32_t> inside_ = {0};  // of the epochs first_, first_ + 1, ...
  uint64_t first_ = 0;
  runtime::Signal left_;
};

}  // namespace gabion::qcow2
