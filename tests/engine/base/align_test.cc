#include "engine/base/align.h"

#include <gtest/gtest.h>

#include <limits>

namespace gabion {
namespace {

constexpr uint64_t kMax = std::numeric_limits<uint64_t>::max();

TEST(AlignTest, RoundsToMultiples) {
  EXPECT_EQ(RoundDown(4097, 4096), 4096u);
  EXPECT_EQ(RoundUp(4097, 4096), 8192u);
  EXPECT_EQ(RoundUp(4096, 4096), 4096u);
  EXPECT_EQ(RoundUp(0, 512), 0u);
}

TEST(AlignTest, FitsWithinDoesNotOverflow) {
  EXPECT_TRUE(FitsWithin(Range(0, 10), ByteCount{10}));
  EXPECT_TRUE(FitsWithin(Range(10, 0), ByteCount{10}));
  EXPECT_FALSE(FitsWithin(Range(10, 1), ByteCount{10}));
  EXPECT_FALSE(FitsWithin(Range(11, 0), ByteCount{10}));
  EXPECT_FALSE(FitsWithin(Range(kMax, kMax), ByteCount{10}));
  EXPECT_FALSE(FitsWithin(Range(1, kMax), ByteCount{kMax}));
}

TEST(AlignTest, TheEndOfTheDiskCountsAsAligned) {
  EXPECT_TRUE(IsAlignedWithin(Range(512, 488), ByteCount{512}, ByteCount{1000}));
  EXPECT_FALSE(IsAlignedWithin(Range(512, 487), ByteCount{512}, ByteCount{1000}));
  EXPECT_FALSE(IsAlignedWithin(Range(513, 487), ByteCount{512}, ByteCount{1000}));
}

TEST(AlignTest, OutwardStopsAtTheEndOfTheDisk) {
  EXPECT_EQ(AlignOutward(Range(513, 1), ByteCount{512}, ByteCount{1000}), Range(512, 488));
  EXPECT_EQ(AlignOutward(Range(5, 1), ByteCount{512}, ByteCount{1000}), Range(0, 512));
  EXPECT_EQ(AlignOutward(Range(512, 0), ByteCount{512}, ByteCount{1000}), Range(512, 0));
  EXPECT_EQ(AlignOutward(Range(kMax - 1, 1), ByteCount{512}, ByteCount{kMax}),
            Range(RoundDown(kMax, 512), 511));
}

TEST(AlignTest, IntersectionOfDisjointRangesIsEmpty) {
  EXPECT_EQ(Intersect(Range(0, 10), Range(5, 10)), Range(5, 5));
  EXPECT_TRUE(Intersect(Range(0, 5), Range(5, 10)).empty());
  EXPECT_FALSE(Overlaps(Range(0, 5), Range(5, 10)));
}

}  // namespace
}  // namespace gabion
