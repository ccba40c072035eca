// Explanations while somebody writes: the disk changes between two of the questions that an
// explanation asks of it.
#include "engine/explain.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/align.h"
#include "engine/image_files.h"
#include "tests/engine/raw_image_fixture.h"
#include "tests/support/manual_clock.h"
#include "tests/support/memory_node.h"
#include "tests/support/random_source.h"

namespace gabion::engine {
namespace {

using block::ExtentKind;
using test::MemoryNode;
using test::NodeCall;
using test::RandomSource;
using LayerState = ExplainedLayer::State;

constexpr ExtentKind kKinds[] = {ExtentKind::kData, ExtentKind::kZeroAllocated, ExtentKind::kZero,
                                 ExtentKind::kUnallocated};

struct Write {
  ByteRange range;
  ExtentKind kind = ExtentKind::kData;
};

// A disk of one layer, and an export of it with two filters that change nothing.
class ExplainTest : public RawImageTest, public Image::GrowthObserver {
 protected:
  void TearDown() override { EndExport(); }

  // Nothing is allocated, then `written` is written.
  void BeginExport(uint64_t size, uint32_t granule, const std::vector<Write>& written) {
    absl::StatusOr<OpenedImage> opened = OpenImageFile(*pool_, spec_, /*direct=*/false);
    ASSERT_TRUE(opened.ok()) << opened.status();
    auto disk = std::make_unique<MemoryNode>(test::MemoryNodeOptions{.size = size});
    disk_ = disk.get();
    for (const Write& write : written) Apply(write);
    Image::Parts parts{
        .format = std::move(disk), .lock_fd = std::move(opened->lock_fd), .lock = opened->lock};
    image_ = std::make_unique<Image>(spec_, std::move(parts), ready_, *this);
    StackSurroundings surroundings{ready_, clock_, NullLogger(), states_, "exports/e", 1};
    std::vector<FilterEntry> entries = {{.id = "log", .options = filters::LogOptions{}},
                                        {.id = "count", .options = filters::StatsOptions{}}};
    auto stack = Finish(
        FilterStack::Build(std::move(surroundings), image_->root(), std::move(entries), nullptr));
    ASSERT_TRUE(stack.ok()) << stack.status();
    stack_ = *std::move(stack);
    version_ = {};
    version_.root = &stack_->top();
    version_.info.block_sizes.minimum = granule;
    const ByteCount rounded =
        block::TailSize(block::TailMode::kPadZero, ByteCount{size}, ByteCount{granule});
    version_.info.traits.size = rounded;
    if (rounded.value == size) return;
    version_.tail = std::make_unique<block::TailNode>(stack_->top(), block::TailMode::kPadZero,
                                                      ByteCount{granule}, ready_);
    version_.root = version_.tail.get();
  }
  void EndExport() {
    if (image_ == nullptr) return;
    disk_->SetFault(nullptr);
    version_ = {};
    const Task<void> settled = stack_->Settle();
    ready_.RunUntilIdle();
    EXPECT_TRUE(settled.done());
    stack_.reset();
    EXPECT_TRUE(Finish(image_->Close()).ok());
    image_.reset();
  }

  void Apply(const Write& write) {
    if (write.kind == ExtentKind::kData) {
      disk_->Fill(write.range, std::byte{7});
    } else {
      disk_->SetStatus(write.range, write.kind, write.kind == ExtentKind::kUnallocated ? 0 : 1);
    }
  }
  // `write` comes just before question `number` of those that reach the disk, from 0.
  void WriteBefore(uint64_t number, const Write& write) {
    asked_ = 0;
    disk_->SetFault([this, number, write](NodeCall call, ByteRange) {
      if (call == NodeCall::kBlockStatus && asked_++ == number) Apply(write);
      return absl::OkStatus();
    });
  }
  Explanation Explain(ByteRange range) {
    auto told = Finish(ExplainExport(version_, *stack_, *image_, range));
    EXPECT_TRUE(told.ok()) << told.status();
    return told.ok() ? *std::move(told) : Explanation();
  }

  std::vector<ExtentKind> Kinds() const {
    std::vector<ExtentKind> kinds;
    for (uint64_t at = 0; at < disk_->limits().size.value; ++at) {
      kinds.push_back(disk_->kind_at(at));
    }
    return kinds;
  }

  template <typename T>
  T Finish(Task<T> task) {
    ready_.RunUntilIdle();
    return task.Take();
  }

  runtime::ReadyQueue ready_;
  test::ManualClock clock_{ready_};
  SharedFilterStates states_;
  MemoryNode* disk_ = nullptr;  // the image's
  std::unique_ptr<Image> image_;
  std::unique_ptr<FilterStack> stack_;
  nbd::ExportVersion version_;
  uint64_t asked_ = 0;

 private:
  void OnImageGrown(Image&) override {}
};

TEST_F(ExplainTest, AWriteAfterTheLevelsWereAskedLeavesTheUnitsThatAreStillAlike) {
  BeginExport(65536, 4096, {});
  WriteBefore(~uint64_t{0}, {});
  EXPECT_EQ(Explain(Range(0, 65536)).range, Range(0, 65536));
  const uint64_t last = asked_ - 1;  // that of the units
  WriteBefore(last, {.range = Range(8192 + 100, 10)});
  const Explanation before = Explain(Range(0, 65536));
  EXPECT_EQ(asked_, last + 1);
  EXPECT_EQ(before.range, Range(0, 8192));
  EXPECT_EQ(before.told->units, Range(0, 8192));
  EXPECT_TRUE(before.told->hole && before.told->zero);
  EXPECT_FALSE(before.told->merged);
  EXPECT_EQ(before.layers.at(0).state, LayerState::kNothing);
}

// What an explanation says after a race with one write.
class Race {
 public:
  Race(std::vector<ExtentKind> before, std::vector<ExtentKind> after, uint64_t granule)
      : before_(std::move(before)), after_(std::move(after)), granule_(granule) {}

  void Judge(const Explanation& one, ByteRange asked) const {
    ASSERT_EQ(one.range.offset, asked.offset);
    ASSERT_FALSE(one.range.empty());
    ASSERT_LE(one.range.end(), asked.end());
    const ExplainedUnits& told = one.told.value();
    ASSERT_TRUE(IsMultiple(told.units.offset.value, granule_));
    ASSERT_TRUE(IsMultiple(told.units.length.value, granule_));
    ASSERT_EQ(Intersect(told.units, one.range), one.range);
    ASSERT_LT(one.range.offset - told.units.offset, ByteCount{granule_});
    ASSERT_EQ(told.merged, told.units != one.range);
    ASSERT_EQ(told.has_padding, told.units.end().value > after_.size());
    for (uint64_t at = told.units.offset.value; at < told.units.end().value; at += granule_) {
      ASSERT_NO_FATAL_FAILURE(JudgeUnit(told, Range(at, granule_)));
    }
    if (one.range.offset.value >= after_.size()) {
      ASSERT_TRUE(one.layers.empty());
      return;
    }
    ASSERT_EQ(one.layers.size(), 1u);
    ASSERT_TRUE(IsAll(before_, one) || IsAll(after_, one));
  }

 private:
  // All of the units is told of as it is when the explanation is done, each as a whole.
  void JudgeUnit(const ExplainedUnits& told, ByteRange unit) const {
    unit = Intersect(unit, Range(0, after_.size()));
    bool zero = true;
    bool hole = true;
    bool touched = false;
    bool untouched = false;
    for (uint64_t at = unit.offset.value; at < unit.end().value; ++at) {
      const ExtentKind kind = after_[at];
      zero &= kind != ExtentKind::kData;
      hole &= kind == ExtentKind::kZero || kind == ExtentKind::kUnallocated;
      touched |= kind != ExtentKind::kUnallocated;
      untouched |= kind == ExtentKind::kUnallocated;
    }
    ASSERT_EQ(told.zero, zero);
    ASSERT_EQ(told.hole, hole);
    ASSERT_EQ(told.depth, touched ? 1u : 0u);
    ASSERT_EQ(told.maximum_depth, !touched ? 0u : untouched ? 2u : 1u);
  }

  static LayerState StateOf(ExtentKind kind) {
    switch (kind) {
      case ExtentKind::kData:
        return LayerState::kData;
      case ExtentKind::kZeroAllocated:
        return LayerState::kZeroAllocated;
      case ExtentKind::kZero:
        return LayerState::kZero;
      case ExtentKind::kUnallocated:
        break;
    }
    return LayerState::kNothing;
  }
  // True if what is said of the layer was so, for all of the range at one time.
  static bool IsAll(const std::vector<ExtentKind>& kinds, const Explanation& one) {
    const auto range = std::span(kinds).subspan(one.range.offset.value, one.range.length.value);
    return std::all_of(range.begin(), range.end(),
                       [&one](ExtentKind kind) { return StateOf(kind) == one.layers[0].state; });
  }

  const std::vector<ExtentKind> before_;
  const std::vector<ExtentKind> after_;
  const uint64_t granule_;
};

TEST_F(ExplainTest, AWriteBetweenAnyTwoQuestionsLeavesAnExplanationThatIsTrue) {
  RandomSource random;
  for (int round = 0; round < 100; ++round) {
    SCOPED_TRACE(absl::StrCat("round ", round));
    const uint64_t size = random.Between(1, 20'000);
    const auto granule = static_cast<uint32_t>(random.PowerOfTwo(1, 4096));
    const auto any = [&] {
      return Write{AlignOutward(random.RangeWithin(size), ByteCount{random.PowerOfTwo(1, 4096)},
                                ByteCount{size}),
                   random.Pick(kKinds)};
    };
    std::vector<Write> written;
    for (uint64_t i = random.Below(8); i > 0; --i) written.push_back(any());
    const Write late = any();
    ByteRange asked = random.RangeWithin(RoundUp(size, granule));
    if (random.OneIn(2)) asked.offset = late.range.offset;
    asked.length = std::min(asked.length, ByteOffset{RoundUp(size, granule)} - asked.offset);
    for (uint64_t number = 0;; ++number) {
      SCOPED_TRACE(absl::StrCat("question ", number));
      ASSERT_NO_FATAL_FAILURE(BeginExport(size, granule, written));
      const std::vector<ExtentKind> before = Kinds();
      WriteBefore(number, late);
      const Explanation one = Explain(asked);
      const Race race(before, Kinds(), granule);
      ASSERT_NO_FATAL_FAILURE(race.Judge(one, asked));
      EndExport();
      if (asked_ <= number) break;  // has come too late
    }
  }
}

}  // namespace
}  // namespace gabion::engine
