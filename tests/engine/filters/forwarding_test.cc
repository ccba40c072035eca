// What filters cost: a request that is done at once, or that a filter only hands on, takes no
// memory on its way.
#include <gtest/gtest.h>

#include <cstdlib>
#include <functional>
#include <memory>
#include <new>
#include <thread>
#include <vector>

#include "engine/filters/align.h"
#include "engine/filters/feature_mask.h"
#include "engine/filters/observe.h"
#include "engine/filters/protect.h"
#include "engine/filters/readahead.h"
#include "engine/filters/resize.h"
#include "engine/filters/retry.h"
#include "engine/filters/slice.h"
#include "engine/runtime/event.h"
#include "tests/engine/filters/filter_stand.h"

namespace {
thread_local uint64_t allocations = 0;
}  // namespace

void* operator new(std::size_t size) {
  ++allocations;
  void* memory = std::malloc(size);
  if (memory == nullptr) std::abort();
  return memory;
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace gabion::filters {
namespace {

// Answers reads at once, or, while it is held, when it is let go.
class Source final : public block::FilterNode {
 public:
  Source(block::Node& child, runtime::ReadyQueue& ready) : FilterNode(child), freed_(ready) {}
  void Hold() { held_ = true; }
  void Free() {
    held_ = false;
    freed_.WakeAll();
  }

 private:
  Task<absl::Status> DoRead(ByteRange, MutableBytes) override {
    if (held_) return Wait();
    return absl::OkStatus();
  }
  Task<absl::Status> DoWrite(ByteRange, Bytes, block::WriteOptions) override {
    return absl::OkStatus();
  }
  Task<absl::Status> Wait() {
    while (held_) co_await freed_.Wait();
    co_return absl::OkStatus();
  }

  bool held_ = false;
  runtime::Signal freed_;
};

struct Tower {
  test::FilterStand stand;
  test::MemoryNode memory{{.size = 1 << 20}};
  Source source{memory, stand.ready};
  std::vector<std::unique_ptr<Filter>> filters;

  block::Node& top() {
    if (filters.empty()) return source;
    return *filters.back();
  }
  void AddForwarders() {
    filters.push_back(NewFeatureMask(top(), stand.environment(), {.hide_holes = true}));
    filters.push_back(NewSlice(top(), stand.environment(), Range(4096, 0), true));
    filters.push_back(NewReadOnly(top(), stand.environment()));
    filters.push_back(NewReadahead(top(), stand.environment(), {}));
    filters.push_back(NewResize(top(), stand.environment(), {ResizeOptions::Mode::kRoundUp, 4096}));
    filters.push_back(NewWriteProtect(top(), stand.environment(), {.ranges = {Range(0, 4096)}}));
  }
  void AddObservers() {
    filters.push_back(NewLog(top(), stand.environment(), {.failures_only = true}));
    filters.push_back(NewStats(top(), stand.environment()));
    filters.push_back(NewRetry(top(), stand.environment(), {}));
    filters.push_back(NewAlign(top(), stand.environment(), "odd", {.alignment = 512}));
  }
};

// On a thread of its own, whose pool of frames is empty: every first frame of its size counts.
void OnNewThread(const std::function<void()>& body) {
  std::thread thread(body);
  thread.join();
}

TEST(ForwardingTest, TheCountSeesFrames) {
  OnNewThread([] {
    Tower tower;
    tower.source.Hold();
    std::vector<std::byte> bytes(4096);
    const uint64_t before = allocations;
    Task<absl::Status> read = tower.top().Read(Range(8192, 4096), bytes);
    EXPECT_GT(allocations, before);
    tower.source.Free();
    EXPECT_TRUE(tower.stand.Finish(std::move(read)).ok());
  });
}

TEST(ForwardingTest, AReadThatIsDoneAtOnceTakesNoMemoryInTenFilters) {
  OnNewThread([] {
    Tower tower;
    tower.AddForwarders();
    tower.AddObservers();
    ASSERT_EQ(tower.filters.size(), 10u);
    std::vector<std::byte> bytes(4096);
    const uint64_t before = allocations;
    for (uint64_t i = 0; i < 50; ++i) {
      const absl::Status status = tower.top().Read(Range(i * 12288, 4096), bytes).Take();
      if (!status.ok()) ADD_FAILURE() << status;
    }
    EXPECT_EQ(allocations, before);
  });
}

TEST(ForwardingTest, AReadThatWaitsTakesNoMemoryInFiltersThatForward) {
  uint64_t counts[2];
  for (int with = 0; with < 2; ++with) {
    OnNewThread([with, &counts] {
      Tower tower;
      if (with == 1) tower.AddForwarders();
      tower.source.Hold();
      std::vector<std::byte> bytes(4096);
      const uint64_t before = allocations;
      Task<absl::Status> read = tower.top().Read(Range(8192, 4096), bytes);
      counts[with] = allocations - before;
      tower.source.Free();
      EXPECT_TRUE(tower.stand.Finish(std::move(read)).ok());
    });
  }
  EXPECT_EQ(counts[0], counts[1]);
}

TEST(ForwardingTest, AWriteThatIsDoneAtOnceTakesNoMemory) {
  OnNewThread([] {
    Tower tower;
    auto& filters = tower.filters;
    test::FilterStand& stand = tower.stand;
    filters.push_back(NewSlice(tower.top(), stand.environment(), Range(4096, 0), true));
    filters.push_back(NewWriteProtect(tower.top(), stand.environment(), {.ranges = {Range(0, 1)}}));
    filters.push_back(NewStats(tower.top(), stand.environment()));
    filters.push_back(NewRetry(tower.top(), stand.environment(), {}));
    const std::vector<std::byte> bytes(4096);
    const uint64_t before = allocations;
    const absl::Status status = tower.top().Write(Range(8192, 4096), bytes, {}).Take();
    EXPECT_EQ(allocations, before);
    EXPECT_TRUE(status.ok());
  });
}

}  // namespace
}  // namespace gabion::filters
