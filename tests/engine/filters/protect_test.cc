#include "engine/filters/protect.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/engine/filters/filter_stand.h"

namespace gabion::filters {
namespace {

using test::MemoryNode;
using test::NodeCall;

TEST(ReadOnlyTest, TakesTheRightToWriteAndNothingElse) {
  test::FilterStand stand;
  MemoryNode memory({.size = 5000});
  test::RichNode child(memory);
  const auto filter = NewReadOnly(child, stand.environment());
  EXPECT_FALSE(filter->limits().writable);
  test::ExpectSameLimits(filter->limits(), child.limits(), {"writable"});
  EXPECT_TRUE(filter->Flush().Take().ok());
  EXPECT_EQ(memory.CountCalls(NodeCall::kFlush), 1u);
  filter->Refresh();
  EXPECT_FALSE(filter->limits().writable);
}

TEST(ReadOnlyTest, ChangesNoSizeButFollowsIt) {
  test::FilterStand stand;
  MemoryNode child({.size = 5000});
  const auto filter = NewReadOnly(child, stand.environment());
  EXPECT_EQ(filter->Resize(ByteCount{6000}).Take().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(child.limits().size, ByteCount{5000});
  EXPECT_TRUE(child.Resize(ByteCount{6000}).Take().ok());
  filter->Refresh();
  EXPECT_EQ(filter->limits().size, ByteCount{6000});
}

// All that changes something, in a range.
std::vector<absl::Status> ChangeAll(block::Node& node, ByteRange range) {
  const std::vector<std::byte> bytes = test::Filled(range.length.value, 1);
  return {node.Write(range, bytes, {}).Take(), node.Zero(range, {}).Take(),
          node.Discard(range).Take()};
}

TEST(WriteProtectTest, ATouchedByteRefusesTheWholeRequest) {
  test::FilterStand stand;
  MemoryNode child({.size = 1000});
  const auto filter =
      NewWriteProtect(child, stand.environment(), {.ranges = {Range(100, 50), Range(300, 1)}});
  const ByteRange touching[] = {Range(100, 50), Range(149, 1), Range(0, 101),
                                Range(0, 1000), Range(300, 1), Range(200, 101)};
  for (const ByteRange& range : touching) {
    for (const absl::Status& status : ChangeAll(*filter, range)) {
      EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied) << range.offset.value;
    }
  }
  EXPECT_TRUE(child.calls().empty());
  const ByteRange apart[] = {Range(0, 100), Range(150, 150), Range(301, 699)};
  for (const ByteRange& range : apart) {
    for (const absl::Status& status : ChangeAll(*filter, range)) EXPECT_TRUE(status.ok());
  }
  EXPECT_EQ(child.calls().size(), 9u);
  EXPECT_EQ(filter->GetStatistics().counters[0].name, "refused");
  EXPECT_EQ(filter->GetStatistics().counters[0].value, 18u);
}

TEST(WriteProtectTest, TheErrorNamesTheEntryTheRequestAndTheRange) {
  test::FilterStand stand;
  MemoryNode child({.size = 10000});
  const auto filter = NewWriteProtect(child, stand.environment(),
                                      {.ranges = {Range(4096, 512), Range(9000, ~0ULL)}});
  const std::vector<std::byte> bytes = test::Filled(512, 1);
  EXPECT_EQ(filter->Write(Range(4000, 512), bytes, {}).Take().message(),
            "exports/a, filter 'f': write of 512 bytes at 4000: the bytes 4096 to 4607 are "
            "write-protected");
  EXPECT_THAT(std::string(filter->Discard(Range(9100, 1)).Take().message()),
              testing::HasSubstr("the bytes from 9000 on are write-protected"));
}

TEST(WriteProtectTest, ReadsFlushesCacheAndStatusPass) {
  test::FilterStand stand;
  MemoryNode child({.size = 1000});
  const auto filter = NewWriteProtect(child, stand.environment(), {.ranges = {Range(0, 1000)}});
  std::vector<std::byte> bytes(1000);
  EXPECT_TRUE(filter->Read(Range(0, 1000), bytes).Take().ok());
  EXPECT_TRUE(filter->Flush().Take().ok());
  EXPECT_TRUE(filter->Cache(Range(0, 1000)).Take().ok());
  EXPECT_TRUE(filter->BlockStatus(Range(0, 1000), 1).Take().ok());
  EXPECT_EQ(child.calls().size(), 4u);
}

TEST(WriteProtectTest, InvertedProtectsWhatGrowsToo) {
  test::FilterStand stand;
  MemoryNode child({.size = 1000});
  const auto filter =
      NewWriteProtect(child, stand.environment(), {.ranges = {Range(0, 100)}, .inverted = true});
  EXPECT_TRUE(filter->Resize(ByteCount{2000}).Take().ok());
  EXPECT_TRUE(filter->Discard(Range(0, 100)).Take().ok());
  EXPECT_FALSE(filter->Discard(Range(1500, 1)).Take().ok());
}

TEST(WriteProtectTest, InvertedWithoutRangesProtectsAll) {
  test::FilterStand stand;
  MemoryNode child({.size = 1000});
  const auto filter = NewWriteProtect(child, stand.environment(), {.inverted = true});
  for (const absl::Status& status : ChangeAll(*filter, Range(999, 1))) EXPECT_FALSE(status.ok());
}

TEST(WriteProtectTest, ConfigureHoldsForLaterRequests) {
  test::FilterStand stand;
  MemoryNode child({.size = 1000});
  const auto filter = NewWriteProtect(child, stand.environment(), {.ranges = {Range(0, 100)}});
  filter->Configure({.ranges = {Range(200, 100)}});
  EXPECT_TRUE(filter->Discard(Range(0, 100)).Take().ok());
  EXPECT_FALSE(filter->Discard(Range(250, 1)).Take().ok());
}

// Random ranges against a plain array of flags.
TEST(WriteProtectPropertyTest, RefusesExactlyWhatTouchesAProtectedByte) {
  test::RandomSource random;
  constexpr uint64_t kSize = 300;
  uint64_t refused = 0;
  uint64_t passed = 0;
  for (int round = 0; round < 300; ++round) {
    WriteProtectOptions options;
    options.inverted = random.OneIn(2);
    std::vector<bool> is_protected(kSize, options.inverted);
    for (uint64_t n = random.Below(12); n > 0; --n) {
      const uint64_t begin = random.Below(kSize + 20);
      const uint64_t length = random.OneIn(10) ? ~uint64_t{0} : random.Below(40);
      options.ranges.push_back(Range(begin, length));
      for (uint64_t at = begin; at < kSize && at - begin < length; ++at) {
        is_protected[at] = !options.inverted;
      }
    }
    test::FilterStand stand;
    MemoryNode child({.size = kSize});
    const auto filter = NewWriteProtect(child, stand.environment(), options);
    for (int i = 0; i < 40; ++i) {
      const ByteRange range = Range(random.Below(kSize), 0);
      const uint64_t length = random.Between(1, std::min<uint64_t>(20, kSize - range.offset.value));
      bool touched = false;
      for (uint64_t at = 0; at < length; ++at) touched |= is_protected[range.offset.value + at];
      const absl::Status status = filter->Discard(Range(range.offset.value, length)).Take();
      ASSERT_EQ(status.ok(), !touched) << range.offset.value << "+" << length;
      ++(touched ? refused : passed);
    }
  }
  EXPECT_GT(refused, 100u);
  EXPECT_GT(passed, 100u);
}

}  // namespace
}  // namespace gabion::filters
