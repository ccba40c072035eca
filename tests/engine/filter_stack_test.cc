// Stacks of filters over disks in memory, against a model that knows every byte's content and
// status.
#include "engine/filter_stack.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/align.h"
#include "engine/base/reason.h"
#include "engine/block/block_status.h"
#include "engine/nbd/server/status_reply.h"
#include "tests/support/manual_clock.h"
#include "tests/support/memory_node.h"
#include "tests/support/random_source.h"

namespace gabion::engine {
namespace {

using block::ExtentKind;
using test::RandomSource;

constexpr uint64_t kDiskBytes = 96 * kKiB;
constexpr uint32_t kLayers = 4;

struct ModelByte {
  std::byte content{0};
  ExtentKind kind = ExtentKind::kUnallocated;
  uint32_t layer = 0;
  friend bool operator==(const ModelByte&, const ModelByte&) = default;
};
using Model = std::vector<ModelByte>;

class FilterStackTest : public ::testing::Test {
 protected:
  template <typename T>
  T Finish(Task<T> task) {
    for (int i = 0; i < 1000 && !task.done(); ++i) clock_.Advance(std::chrono::milliseconds(1));
    return task.Take();
  }
  void Settle(FilterStack& stack) {
    Task<void> task = stack.Settle();
    clock_.Advance(std::chrono::milliseconds(1));
    ASSERT_TRUE(task.done());
  }

  // A disk with a random status and content, and what it is.
  std::unique_ptr<test::MemoryNode> RandomDisk(Model& model) {
    test::MemoryNodeOptions options{
        .size = kDiskBytes - (random_.OneIn(2) ? random_.Below(5000) : 0),
        .alignment = random_.PowerOfTwo(1, 4096),
        .layers = kLayers};
    auto disk = std::make_unique<test::MemoryNode>(options);
    model.assign(options.size, {});
    for (uint64_t at = 0; at < options.size;) {
      const uint64_t unit = random_.PowerOfTwo(1, 8192);
      const uint64_t length = std::min(options.size - at, random_.Between(1, 3) * unit);
      ModelByte byte;
      byte.kind = random_.Pick({ExtentKind::kData, ExtentKind::kZero, ExtentKind::kZeroAllocated,
                                ExtentKind::kUnallocated});
      if (byte.kind != ExtentKind::kUnallocated) {
        byte.layer = static_cast<uint32_t>(random_.Between(1, kLayers));
      }
      if (byte.kind == ExtentKind::kData) {
        byte.content = std::byte(random_.Below(256));
        disk->Fill(Range(at, length), byte.content, byte.layer);
      } else {
        disk->SetStatus(Range(at, length), byte.kind, byte.layer);
      }
      std::fill_n(model.begin() + static_cast<std::ptrdiff_t>(at), length, byte);
      at += length;
    }
    return disk;
  }

  // Any filter, and what it makes of the model.
  FilterOptions RandomFilter(Model& model) {
    switch (random_.Below(11)) {
      case 0: {
        const uint64_t offset = random_.Below(std::min<uint64_t>(model.size(), 10'000));
        const uint64_t left = model.size() - offset;
        const uint64_t length = random_.OneIn(3) ? 0 : random_.Between(left - left / 4, left);
        model.erase(model.begin(), model.begin() + static_cast<std::ptrdiff_t>(offset));
        if (length != 0) model.resize(length);
        return filters::SliceOptions{.range = Range(offset, length)};
      }
      case 1: {
        filters::ResizeOptions options;
        options.mode = random_.Pick({filters::ResizeOptions::Mode::kSize,
                                     filters::ResizeOptions::Mode::kRoundUp,
                                     filters::ResizeOptions::Mode::kRoundDown});
        options.bytes = options.mode == filters::ResizeOptions::Mode::kSize
                            ? random_.Between(model.size() / 2, model.size() * 3 / 2)
                            : random_.PowerOfTwo(1, 8192);
        model.resize(filters::ResizedSize(options, ByteCount{model.size()}).value);
        return options;
      }
      case 2:
        if (!random_.OneIn(4)) return filters::FeatureMaskOptions{.hide_trim = random_.OneIn(2)};
        for (ModelByte& byte : model) {
          byte.kind = ExtentKind::kData;
          byte.layer = 1;
        }
        return filters::FeatureMaskOptions{.hide_holes = true};
      case 3:
        return filters::AlignOptions{
            .alignment = static_cast<uint32_t>(random_.OneIn(3) ? 0 : random_.PowerOfTwo(1, 8192)),
            .max_transfer = random_.OneIn(2) ? 0U : 8192U};
      case 4:
        return filters::FaultOptions{
            .alignment = static_cast<uint32_t>(random_.OneIn(3) ? 0 : random_.PowerOfTwo(1, 8192))};
      case 5:
        return CowEntry{
            .options = {.block_size = static_cast<uint32_t>(random_.PowerOfTwo(512, 8192))}};
      case 6: {
        CacheEntry cache;
        cache.options.block_size = 4096;
        cache.options.size = random_.Between(1, 8) * 4096;
        return cache;
      }
      default:
        return RandomTransparent();
    }
  }

  FilterOptions RandomTransparent() {
    switch (random_.Below(8)) {
      case 0:
        return filters::ThrottleOptions{.total_bytes = {.per_second = kGiB}};
      case 1:
        return filters::DelayOptions{.read = std::chrono::microseconds(100)};
      case 2:
        return filters::WriteProtectOptions{.ranges = {Range(0, 4096)}};
      case 3:
        return filters::LogOptions{};
      case 4:
        return filters::StatsOptions{};
      case 5:
        return filters::ReadaheadOptions{};
      case 6:
        return filters::RetryOptions{};
      default:
        return filters::FeatureMaskOptions{};
    }
  }

  static FilterEntry Entry(std::size_t number, FilterOptions options) {
    return {.id = absl::StrCat("f", number), .options = std::move(options)};
  }

  // Random filters; the model becomes what they show. [0] is the top.
  std::vector<FilterEntry> RandomStack(Model& model) {
    std::vector<FilterEntry> entries;
    for (uint64_t i = random_.Below(7); i > 0; --i) {
      FilterEntry entry = Entry(i, {});
      entry.bypassed = random_.OneIn(6);
      Model through = model;
      entry.options = RandomFilter(through);
      if (through.empty() || through.size() > 4 * kDiskBytes) continue;
      if (!entry.bypassed) model = std::move(through);
      entries.insert(entries.begin(), std::move(entry));
    }
    return entries;
  }

  absl::StatusOr<std::unique_ptr<FilterStack>> Build(block::Node& disk,
                                                     std::vector<FilterEntry> entries,
                                                     const FilterStack* before = nullptr) {
    StackSurroundings surroundings{ready_, clock_, NullLogger(), states_, "exports/e", 1};
    return Finish(FilterStack::Build(std::move(surroundings), disk, std::move(entries), before));
  }

  // Everything that can be asked about `range`.
  void ExpectShows(block::Node& node, const Model& model, ByteRange range) {
    std::vector<std::byte> data(range.length.value);
    ASSERT_EQ(Finish(node.Read(range, data)), absl::OkStatus());
    for (uint64_t i = 0; i < data.size(); ++i) {
      ASSERT_EQ(data[i], model[range.offset.value + i].content) << range.offset.value + i;
    }
    const auto extents = Finish(node.BlockStatus(range, random_.Between(1, 9)));
    ASSERT_TRUE(extents.ok()) << extents.status();
    ASSERT_FALSE(extents->empty());
    ByteOffset next = range.offset;
    for (const block::Extent& extent : *extents) {
      ASSERT_EQ(extent.range.offset, next);
      ASSERT_FALSE(extent.range.empty());
      next = extent.range.end();
      ASSERT_LE(next.value, range.end().value);
      for (uint64_t at = extent.range.offset.value; at < next.value; ++at) {
        ASSERT_EQ(extent.kind, model[at].kind) << at;
        ASSERT_EQ(extent.layer, model[at].layer) << at;
      }
    }
  }

  // P1 and P2 of the status rules, for whatever minimum block size follows from the stack.
  void ExpectAligned(block::Node& top, const Model& model) {
    const block::Limits& limits = top.limits();
    const uint64_t granule = std::max(limits.alignment.value, limits.emulated_alignment.value);
    const uint64_t size = RoundDown(limits.size.value, granule);
    if (size == 0) return;
    ByteRange range = random_.RangeWithin(size);
    range = AlignOutward(range, ByteCount{granule}, ByteCount{size});
    const std::vector<block::MergeOperator> operators = {block::MergeOperator::kAllocation,
                                                         block::MergeOperator::kDepthMin};
    nbd::StatusPlan plan({.range = range, .one = false},
                         {.granule = ByteCount{granule},
                          .export_size = ByteCount{size},
                          .content_size = ByteCount{size},
                          .layers = limits.layers,
                          .most_descriptors = 100},
                         operators);
    while (!plan.done()) {
      const auto extents = Finish(top.BlockStatus(plan.wanted(), 16));
      ASSERT_TRUE(extents.ok());
      plan.Feed(*extents);
    }
    std::vector<nbd::StatusDescriptor> descriptors;
    plan.AppendDescriptors(0, descriptors);
    uint64_t at = range.offset.value;
    for (const nbd::StatusDescriptor& descriptor : descriptors) {
      ASSERT_TRUE(IsMultiple(descriptor.length, granule));
      const uint64_t end = std::min<uint64_t>(at + descriptor.length, model.size());
      for (; at < end && (descriptor.status & block::kStatusZero) != 0; ++at) {
        ASSERT_EQ(model[at].content, std::byte{0});
      }
      at = end;
    }
  }

  RandomSource random_;
  runtime::ReadyQueue ready_;
  test::ManualClock clock_{ready_};
  SharedFilterStates states_;
};

TEST_F(FilterStackTest, ShowsWhatTheModelOfItsFiltersShows) {
  for (int round = 0; round < 400; ++round) {
    SCOPED_TRACE(absl::StrCat("round ", round));
    Model model;
    const std::unique_ptr<test::MemoryNode> disk = RandomDisk(model);
    std::vector<FilterEntry> entries = RandomStack(model);
    const auto stack = Build(*disk, std::move(entries));
    ASSERT_TRUE(stack.ok()) << stack.status();
    block::Node& top = (*stack)->top();
    ASSERT_EQ(top.limits().size.value, model.size());
    ASSERT_EQ(top.limits().alignment.value, 1u);
    ASSERT_EQ(top.limits().layers, kLayers);
    for (int i = 0; i < 10; ++i) {
      ASSERT_NO_FATAL_FAILURE(ExpectShows(top, model, random_.RangeWithin(model.size())));
      ASSERT_NO_FATAL_FAILURE(ExpectAligned(top, model));
    }
    Settle(**stack);
  }
}

// Filters that change no data, anywhere among others, change nothing (P7).
TEST_F(FilterStackTest, TransparentFiltersChangeNothingWhereverTheyStand) {
  for (int round = 0; round < 200; ++round) {
    SCOPED_TRACE(absl::StrCat("round ", round));
    Model model;
    const std::unique_ptr<test::MemoryNode> disk = RandomDisk(model);
    const std::vector<FilterEntry> entries = RandomStack(model);
    std::vector<FilterEntry> more = entries;
    for (std::size_t i = 0; i < 1 + random_.Below(6); ++i) {
      const auto place = more.begin() + static_cast<std::ptrdiff_t>(random_.Below(more.size() + 1));
      more.insert(place, Entry(100 + i, RandomTransparent()));
    }
    const auto plain = Build(*disk, entries);
    const auto rich = Build(*disk, more);
    ASSERT_TRUE(plain.ok() && rich.ok());
    const block::Limits& a = (*plain)->top().limits();
    const block::Limits& b = (*rich)->top().limits();
    ASSERT_EQ(a.size, b.size);
    ASSERT_EQ(a.emulated_alignment, b.emulated_alignment);
    ASSERT_EQ(a.emulated_from, b.emulated_from);
    ASSERT_EQ(a.preferred, b.preferred);
    ASSERT_EQ(a.writable, b.writable);
    ASSERT_EQ(a.hidden | Bit(block::Feature::kTrim), b.hidden | Bit(block::Feature::kTrim));
    for (ByteOffset at; at.value < a.size.value;) {
      const ByteRange rest{at, a.size - ByteCount{at.value}};
      const auto of_a = Finish((*plain)->top().BlockStatus(rest, 1));
      const auto of_b = Finish((*rich)->top().BlockStatus(rest, 1));
      ASSERT_TRUE(of_a.ok() && of_b.ok());
      ASSERT_EQ(of_a->front(), of_b->front());
      at = of_a->front().range.end();
    }
    Settle(**plain);
    Settle(**rich);
  }
}

TEST_F(FilterStackTest, WritesLandWhereTheyAreRead) {
  for (int round = 0; round < 100; ++round) {
    SCOPED_TRACE(absl::StrCat("round ", round));
    Model model;
    const std::unique_ptr<test::MemoryNode> disk = RandomDisk(model);
    std::vector<FilterEntry> entries = RandomStack(model);
    std::erase_if(entries, [](const FilterEntry& entry) {
      return std::holds_alternative<filters::WriteProtectOptions>(entry.options);
    });
    // What cuts requests into pieces may have written the first ones.
    const bool in_pieces = disk->limits().alignment.value > 1 ||
                           std::any_of(entries.begin(), entries.end(), [](const auto& entry) {
                             return std::holds_alternative<filters::AlignOptions>(entry.options) ||
                                    std::holds_alternative<filters::FaultOptions>(entry.options);
                           });
    const auto stack = Build(*disk, std::move(entries));
    ASSERT_TRUE(stack.ok()) << stack.status();
    block::Node& top = (*stack)->top();
    for (int i = 0; i < 20; ++i) {
      const ByteRange range = random_.RangeWithin(model.size());
      std::vector<std::byte> data(range.length.value);
      random_.FillNonZero(data);
      std::vector<std::byte> before(data.size());
      ASSERT_EQ(Finish(top.Read(range, before)), absl::OkStatus());
      const absl::Status written = Finish(top.Write(range, data, {}));
      std::vector<std::byte> back(data.size());
      ASSERT_EQ(Finish(top.Read(range, back)), absl::OkStatus());
      if (written.ok()) {
        ASSERT_EQ(back, data);
        continue;
      }
      ASSERT_TRUE(absl::IsResourceExhausted(written)) << written;  // what a resize has added
      if (!in_pieces) {
        ASSERT_EQ(back, before) << "nothing of it is written";
      }
    }
    Settle(**stack);
  }
}

// What is written above a cow is shown by every stack that takes over with it in its place, and by
// no other.
TEST_F(FilterStackTest, WhatACowHasIsHandedOverAboveTheSameBytesOnly) {
  for (int round = 0; round < 100; ++round) {
    SCOPED_TRACE(absl::StrCat("round ", round));
    Model model;
    const std::unique_ptr<test::MemoryNode> disk = RandomDisk(model);
    const uint64_t size = model.size();
    const FilterEntry cow = Entry(50, CowEntry{.options = {.block_size = 512}});
    std::vector<FilterEntry> entries = {cow};
    auto stack = Build(*disk, entries);
    ASSERT_TRUE(stack.ok()) << stack.status();
    for (int i = 0; i < 10; ++i) {
      std::vector<std::byte> data(random_.Between(1, 3000));
      random_.FillNonZero(data);
      const uint64_t at = random_.Below(size - data.size());
      ASSERT_EQ(Finish((*stack)->top().Write(Range(at, data.size()), data, {})), absl::OkStatus());
      for (uint64_t k = 0; k < data.size(); ++k) model[at + k].content = data[k];
      const auto place = entries.begin() + static_cast<std::ptrdiff_t>(i % (entries.size() + 1));
      entries.insert(place, Entry(100 + static_cast<std::size_t>(i), RandomTransparent()));
      std::erase_if(entries, [](const FilterEntry& entry) {
        return std::holds_alternative<filters::WriteProtectOptions>(entry.options);
      });
      auto next = Build(*disk, entries, stack->get());
      ASSERT_TRUE(next.ok()) << next.status();
      ASSERT_TRUE((*next)->ShowsSameBytes(**stack));
      (*next)->TakeOver(**stack);
      std::swap(next, stack);
      Settle(**next);
    }
    std::vector<std::byte> back(size);
    ASSERT_EQ(Finish((*stack)->top().Read(Range(0, size), back)), absl::OkStatus());
    for (uint64_t i = 0; i < size; ++i) ASSERT_EQ(back[i], model[i].content) << i;

    std::vector<FilterEntry> moved = {
        cow, Entry(1, filters::ResizeOptions{filters::ResizeOptions::Mode::kSize, size}),
        Entry(2, filters::SliceOptions{.range = Range(random_.Between(1, size - 1), 0)})};
    std::vector<FilterEntry> twice = {Entry(3, CowEntry{}), cow};
    std::vector<FilterEntry> bypassed = {cow};
    bypassed[0].bypassed = true;
    std::vector<FilterEntry> larger = {cow};
    larger[0].options = CowEntry{.options = {.block_size = 1024}};
    for (const auto& others : {moved, twice, bypassed, larger, {}}) {
      const auto other = Build(*disk, others, stack->get());
      ASSERT_TRUE(other.ok()) << other.status();
      EXPECT_FALSE((*other)->ShowsSameBytes(**stack));
      Settle(**other);
    }
    Settle(**stack);
  }
}

TEST_F(FilterStackTest, AlignmentIsToldOnlyAsFarUpAsNobodyEmulatesIt) {
  test::MemoryNode disk({.size = 65536, .alignment = 512});
  const auto told = [&](std::vector<FilterEntry> entries) {
    const auto stack = Build(disk, std::move(entries));
    EXPECT_TRUE(stack.ok()) << stack.status();
    const block::Limits& limits = (*stack)->top().limits();
    return std::make_pair(limits.emulated_alignment.value, limits.emulated_from);
  };
  const FilterEntry fault = Entry(1, filters::FaultOptions{.alignment = 4096});
  const FilterEntry align = Entry(2, filters::AlignOptions{});
  const FilterEntry odd = Entry(3, filters::SliceOptions{.range = Range(100, 0)});
  EXPECT_EQ(told({}), std::make_pair(uint64_t{512}, std::string("memory")));
  EXPECT_EQ(told({fault}), std::make_pair(uint64_t{4096}, std::string("f1")));
  EXPECT_EQ(told({align, fault}).first, 1u);
  EXPECT_EQ(told({fault, align}), std::make_pair(uint64_t{4096}, std::string("f1")));
  // What is emulated for an odd place is still what is best for the storage.
  EXPECT_EQ(told({odd, fault}), std::make_pair(uint64_t{4096}, std::string("f1")));
}

TEST_F(FilterStackTest, ParametersThatDoNotFitTheDiskAreRefusedByName) {
  test::MemoryNode disk({.size = 65536});
  const auto refused = [&](FilterOptions options) {
    std::vector<FilterEntry> entries = {Entry(0, filters::StatsOptions{}),
                                        Entry(1, std::move(options))};
    const auto stack = Build(disk, std::move(entries));
    const std::optional<Reason> reason = ReasonOf(stack.status());
    if (!reason.has_value()) return std::string("no reason");
    std::string text = reason->reason;
    for (const auto& [key, value] : reason->metadata) absl::StrAppend(&text, " ", key, "=", value);
    return text;
  };
  EXPECT_EQ(refused(filters::SliceOptions{.range = Range(65537, 0)}),
            "FILTER_PARAMETERS_INVALID entry-id=f1 index=1 field=slice.range.offset_bytes");
  EXPECT_EQ(refused(filters::SliceOptions{.range = Range(1, 65536)}),
            "FILTER_PARAMETERS_INVALID entry-id=f1 index=1 field=slice.range.length_bytes");
  EXPECT_EQ(refused(filters::SliceOptions{.range = Range(65536, 0)}),
            "FILTER_PARAMETERS_INVALID entry-id=f1 index=1 field=slice.range.offset_bytes");
  EXPECT_EQ(refused(filters::SliceOptions{.partition = 1}),
            "FILTER_PARAMETERS_INVALID entry-id=f1 index=1 field=slice.partition");
  EXPECT_EQ(refused(filters::ResizeOptions{filters::ResizeOptions::Mode::kRoundDown, kGiB}),
            "FILTER_PARAMETERS_INVALID entry-id=f1 index=1 field=resize");
}

TEST_F(FilterStackTest, CountsGoOnInTheStackThatTakesOver) {
  test::MemoryNode disk({.size = 65536});
  const FilterEntry stats = Entry(1, filters::StatsOptions{});
  auto before = Build(disk, {stats});
  ASSERT_TRUE(before.ok());
  std::vector<std::byte> data(512);
  ASSERT_EQ(Finish((*before)->top().Read(Range(0, 512), data)), absl::OkStatus());
  auto after = Build(disk, {Entry(2, filters::LogOptions{}), stats});
  ASSERT_TRUE(after.ok());
  (*after)->TakeOver(**before);
  before->reset();
  ASSERT_EQ(Finish((*after)->top().Read(Range(0, 512), data)), absl::OkStatus());
  const std::vector<FilterStatistics> statistics = (*after)->GetStatistics();
  ASSERT_EQ(statistics.size(), 2u);
  EXPECT_EQ(statistics[1].entry_id, "f1");
  EXPECT_EQ(statistics[1].statistics.counters.front().name, "read_requests");
  EXPECT_EQ(statistics[1].statistics.counters.front().value, 2u);
}

TEST_F(FilterStackTest, OnlyParametersThatAreLiveChangeWithoutANewStack) {
  test::MemoryNode disk({.size = 65536});
  const std::vector<FilterEntry> entries = {
      Entry(0, filters::DelayOptions{.read = std::chrono::seconds(5)}),
      Entry(1, filters::FaultOptions{.alignment = 512}),
      Entry(2, filters::SliceOptions{.range = Range(0, 4096)})};
  const auto stack = Build(disk, entries);
  ASSERT_TRUE(stack.ok());
  std::vector<FilterEntry> changed = entries;
  changed[0].options = filters::DelayOptions{};
  changed[1].options = filters::FaultOptions{.rules = {{}}, .alignment = 512};
  EXPECT_TRUE((*stack)->CanConfigure(changed));
  for (const FilterOptions& other : {FilterOptions(filters::SliceOptions{.range = Range(0, 8192)}),
                                     FilterOptions(filters::LogOptions{})}) {
    changed[2].options = other;
    EXPECT_FALSE((*stack)->CanConfigure(changed));
  }
  changed = entries;
  changed[1].options = filters::FaultOptions{.alignment = 1024};
  EXPECT_FALSE((*stack)->CanConfigure(changed));
  changed = entries;
  changed[0].bypassed = true;
  EXPECT_FALSE((*stack)->CanConfigure(changed));
  changed.pop_back();
  EXPECT_FALSE((*stack)->CanConfigure(changed));
}

}  // namespace
}  // namespace gabion::engine
