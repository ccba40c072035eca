// The simulated machine: one thread, one seed, and the power switch. The order in which calls of
// files complete, and in which coroutines go on, is chosen from the seed.
#pragma once

#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "engine/runtime/ready_queue.h"
#include "engine/runtime/task.h"
#include "tests/sim/sim_disk.h"
#include "tests/support/random_source.h"

namespace gabion::sim {

// How often a call of a file fails: one in so many; 0 for never.
struct SimFaults {
  uint64_t read = 0;      // EIO
  uint64_t write = 0;     // EIO, with any part of the sectors written
  uint64_t zero = 0;      // EIO, likewise
  uint64_t sync = 0;      // EIO, for this and every later sync of the file
  uint64_t no_space = 0;  // ENOSPC, for calls that make the file longer
};

// Owned by a test, used on its thread. A crash freezes what the disks hold and does not destroy any
// coroutine: every pending and later call of a file that was open fails, so that everybody comes to
// an end, and nothing of what they do then reaches a disk. Disks live as long as the world.
class SimWorld {
 public:
  explicit SimWorld(uint64_t seed);
  SimWorld(const SimWorld&) = delete;
  SimWorld& operator=(const SimWorld&) = delete;
  ~SimWorld();

  uint64_t seed() const { return seed_; }
  test::RandomSource& random() { return random_; }
  runtime::ReadyQueue& ready() { return ready_; }
  SimFaults& faults() { return faults_; }

  // An empty file. The reference stays good.
  SimDisk& NewDisk();

  // co_await world.Turn(): waits until the simulation picks the caller among all who wait.
  auto Turn() {
    struct Awaiter {
      SimWorld& world;
      bool await_ready() const noexcept { return false; }
      void await_suspend(std::coroutine_handle<> waiter) const { world.waiting_.push_back(waiter); }
      void await_resume() const noexcept {}
    };
    return Awaiter{*this};
  }

  // Runs one thing that can run. False if there is nothing.
  bool Step();
  // At most so many; the number that ran.
  uint64_t RunSteps(uint64_t most);
  // Runs until `task` is done; its result. That nothing is left to run before is a bug of the code
  // under test: it has lost a wake-up, or waits for itself.
  template <typename T>
  T Finish(Task<T> task) {
    while (!task.done()) StepOrDie();
    return task.Take();
  }
  void Finish(Task<void> task) {
    while (!task.done()) StepOrDie();
  }

  // Coroutines resumed so far.
  uint64_t steps() const { return steps_; }
  // The power fails before the coroutine resumes that would be number `from_now` (0: the next one).
  void CrashIn(uint64_t from_now) { crash_at_ = steps_ + from_now; }
  void CrashNow();
  void CancelCrash() { crash_at_ = kNever; }
  bool crashed() const { return crashed_; }
  // Power is back. REQUIRES: everything that ran before has come to its end.
  void Restart();

 private:
  static constexpr uint64_t kNever = ~uint64_t{0};

  static std::size_t Choose(void* world, std::size_t count);
  void StepOrDie();

  const uint64_t seed_;
  test::RandomSource random_;
  runtime::ReadyQueue ready_;
  SimFaults faults_;
  std::vector<std::coroutine_handle<>> waiting_;
  std::vector<std::unique_ptr<SimDisk>> disks_;
  uint64_t steps_ = 0;
  uint64_t crash_at_ = kNever;
  bool crashed_ = false;
};

}  // namespace gabion::sim
