// Throttles of one group with clients that never pause, on a clock that a test moves.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/filters/throttle.h"
#include "engine/runtime/task_set.h"
#include "tests/support/manual_clock.h"
#include "tests/support/memory_node.h"

namespace gabion::filters {

// A throttle over a disk of its own, and its clients. Owned by a test; one thread.
class ThrottledDisk {
 public:
  static constexpr uint64_t kSize = kMiB;

  ThrottledDisk(runtime::ReadyQueue& ready, runtime::Clock& clock, ThrottleGroup& group)
      : node(NewThrottle(disk, Environment{ready, clock, NullLogger(), "disk"}, group)),
        buffer(kSize),
        tasks_(ready) {}

  // `depth` clients each of which asks for the next `bytes` as soon as it has had the last ones.
  void StartReaders(uint64_t bytes, int depth) {
    for (int i = 0; i < depth; ++i) tasks_.Add(Read(bytes));
  }
  void StartDiscarders(uint64_t bytes, int depth) {
    for (int i = 0; i < depth; ++i) tasks_.Add(Discard(bytes));
  }
  void Stop() { stop_ = true; }
  void Go() { stop_ = false; }
  std::size_t clients() const { return tasks_.running(); }

  uint64_t read = 0;       // bytes
  uint64_t discarded = 0;  // bytes
  uint64_t requests = 0;
  test::MemoryNode disk{{.size = kSize}};
  std::unique_ptr<LiveFilter<ThrottleOptions>> node;
  std::vector<std::byte> buffer;

 private:
  Task<void> Read(uint64_t bytes) {
    while (!stop_) {
      const MutableBytes dst = MutableBytes(buffer).first(bytes);
      absl::Status status = co_await node->Read(Range(0, bytes), dst);
      CHECK(status.ok());
      read += bytes;
      ++requests;
    }
  }
  Task<void> Discard(uint64_t bytes) {
    while (!stop_) {
      absl::Status status = co_await node->Discard(Range(0, bytes));
      CHECK(status.ok());
      discarded += bytes;
      ++requests;
    }
  }

  bool stop_ = false;
  runtime::TaskSet tasks_;
};

// The disks of a group.
class ThrottleFixture {
 public:
  ThrottleFixture() : group(NewThrottleGroup({})) {}
  virtual ~ThrottleFixture() { Finish(); }

  ThrottledDisk& AddDisk() {
    disks_.push_back(std::make_unique<ThrottledDisk>(ready, clock, *group));
    return *disks_.back();
  }
  void Configure(const ThrottleOptions& options) {
    group->Configure(options);
    for (const auto& disk : disks_) disk->node->Configure(options);
  }
  void Advance(double seconds) {
    clock.Advance(runtime::Duration(static_cast<int64_t>(seconds * 1e9)));
  }
  // Lets every client come to its end.
  void Finish() {
    for (const auto& disk : disks_) disk->Stop();
    Configure({});
    ready.RunUntilIdle();
    for (const auto& disk : disks_) CHECK_EQ(disk->clients(), 0u);
  }

  runtime::ReadyQueue ready;
  test::ManualClock clock{ready};
  std::unique_ptr<ThrottleGroup> group;

 private:
  std::vector<std::unique_ptr<ThrottledDisk>> disks_;
};

}  // namespace gabion::filters
