// The filters that keep something, on top of each other in any order.
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/block/sparse_memory.h"
#include "engine/filters/cache.h"
#include "engine/filters/copy_on_read.h"
#include "engine/filters/cow.h"
#include "engine/filters/verify.h"
#include "tests/engine/filters/disk_model.h"

namespace gabion::filters {
namespace {

using block::SparseMemory;
using test::DiskModel;
using test::FilterBase;
using test::MemoryNode;
using test::RandomSource;

// A stack above `disk`, whose filters are destroyed from the top.
class KeepingStack {
 public:
  KeepingStack(FilterBase& base, RandomSource& random, MemoryNode& disk)
      : base_(base), random_(random), disk_(disk), top_(&disk) {
    for (uint64_t n = random_.Between(2, 5); n > 0; --n) AddOne();
  }
  ~KeepingStack() {
    while (!filters_.empty()) filters_.pop_back();
  }

  block::Node& top() { return *top_; }
  const std::string& description() const { return description_; }
  bool holds_cow() const { return !cow_states_.empty(); }

  void Settle() {
    for (auto filter = filters_.rbegin(); filter != filters_.rend(); ++filter) {
      base_.Finish((*filter)->Settle());
    }
  }

 private:
  void AddOne() {
    switch (random_.Below(4)) {
      case 0:
        Add("copy_on_read",
            NewCopyOnRead(*top_, base_.environment(), {.granularity = PowerOfTwo(512, 8192)}));
        break;
      case 1:
        AddCow();
        break;
      case 2:
        AddVerify();
        break;
      default:
        AddCache();
    }
  }
  void AddCow() {
    const CowOptions options{.block_size = PowerOfTwo(512, 8192)};
    block::Node& scratch = Scratch(top_->limits().size);
    cow_states_.push_back(std::make_unique<CowState>(options.block_size, false));
    Add("cow", NewCow(*top_, base_.environment(), "cow", scratch, *cow_states_.back()));
  }
  void AddVerify() {
    block::Node& reference = Scratch(top_->limits().size);
    const std::vector<std::byte> content = disk_.content();
    ASSERT_TRUE(reference.Write(Range(0, content.size()), content, {}).Take().ok());
    Add("verify", NewVerify(*top_, base_.environment(), reference, {}));
  }
  void AddCache() {
    CacheOptions options;
    options.mode =
        random_.OneIn(3) ? CacheOptions::Mode::kWritethrough : CacheOptions::Mode::kWriteback;
    options.block_size = PowerOfTwo(4096, 16384);
    options.size = options.block_size * random_.Between(1, 6);
    options.cache_on_read = random_.OneIn(2);
    block::Node& scratch = Scratch(CacheScratchSize(options));
    cache_states_.push_back(NewCacheState(base_.ready, options));
    Add("cache",
        NewCache(*top_, base_.environment(), "cache", scratch, *cache_states_.back(), options));
  }

  uint32_t PowerOfTwo(uint64_t low, uint64_t high) {
    return static_cast<uint32_t>(random_.PowerOfTwo(low, high));
  }
  block::Node& Scratch(ByteCount size) {
    scratches_.push_back(std::make_unique<SparseMemory>(
        block::SparseMemoryOptions{.size = size, .limit = ByteCount{kMiB}, .chunk_bytes = 4096}));
    return *scratches_.back();
  }
  void Add(const char* name, std::unique_ptr<Filter> filter) {
    description_ = std::string(name) + " " + description_;
    top_ = filter.get();
    filters_.push_back(std::move(filter));
  }

  FilterBase& base_;
  RandomSource& random_;
  MemoryNode& disk_;
  block::Node* top_;
  std::string description_;
  std::vector<std::unique_ptr<SparseMemory>> scratches_;
  std::vector<std::unique_ptr<CowState>> cow_states_;
  std::vector<std::unique_ptr<CacheState>> cache_states_;
  std::vector<std::unique_ptr<Filter>> filters_;
};

TEST(KeepingPropertyTest, AnyStackIsADiskWithTheSameBytes) {
  RandomSource random;
  for (int round = 0; round < 150; ++round) {
    FilterBase base;
    base.ready.SetChooser(&RandomSource::Choose, &random);
    MemoryNode disk({.size = random.Between(1, 60000), .layers = 3, .fast_zero = random.OneIn(2)});
    FillAtRandom(disk, random);
    const std::vector<std::byte> original = disk.content();
    KeepingStack stack(base, random, disk);
    disk.SetDeferred(base.ready, random);
    DiskModel model(base, random, stack.top(), original, {.window = 20000});
    if (!stack.holds_cow()) model.SetBelow(disk);
    for (int wave = 0; wave < 12; ++wave) {
      ASSERT_NO_FATAL_FAILURE(model.RunWave()) << stack.description();
    }
    ASSERT_NO_FATAL_FAILURE(model.CheckLayers(disk)) << stack.description();
    stack.Settle();
    ASSERT_EQ(disk.content(), stack.holds_cow() ? original : model.content())
        << stack.description();
    ASSERT_FALSE(testing::Test::HasFailure()) << stack.description();
  }
}

}  // namespace
}  // namespace gabion::filters
