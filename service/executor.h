// The threads on which control calls do their work, so that gRPC's own threads never block.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/functional/any_invocable.h"

namespace gabion::service {

// A fixed number of threads, and a queue for each lane. Owned by the program; Run() and Offer()
// from any thread.
class Executor {
 public:
  using Work = absl::AnyInvocable<void() &&>;
  // Changes wait for each other. They never have the last quarter of the threads (of one thread:
  // they have it), so that whatever they wait for, all else goes on.
  enum class Lane { kReads, kChanges };
  enum class Taken { kYes, kFull, kStopped };

  // `longest_queue`: of new work that waits for a thread, in each lane.
  explicit Executor(int threads, std::size_t longest_queue = 1024);
  // As Stop().
  ~Executor();
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  std::size_t longest_queue() const { return longest_queue_; }

  // New work: runs `work` on one of the threads, in the order of the calls as far as the lanes let
  // it; it may block. Unless it is taken, it is not run: too much waits, or the executor has been
  // stopped.
  Taken Offer(Lane lane, Work work);
  // More of work that has begun, among the reads: as much as there is. False: it has been stopped.
  bool Run(Work work);

  // Takes no more work, does all that it took, and ends the threads. Not from one of them.
  void Stop();

 private:
  struct Item {
    uint64_t number = 0;  // grows from item to item
    Work work;
  };

  void Push(std::deque<Item>* queue, Work work);
  // The queue whose first item is next; null if there is none.
  std::deque<Item>* Next();
  void Loop();

  const std::size_t longest_queue_;
  const int most_changing_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Item> reads_;
  std::deque<Item> changes_;
  uint64_t last_number_ = 0;
  int changing_ = 0;  // threads that do changes
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace gabion::service
