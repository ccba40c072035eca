#include "engine/block/zeros.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "engine/base/align.h"
#include "tests/support/random_source.h"

namespace gabion::block {
namespace {

using test::RandomSource;

TEST(IsZeroTest, SeesOneByteAtEveryPlaceOfEveryLength) {
  for (std::size_t size = 0; size < 150; ++size) {
    std::vector<std::byte> bytes(size + 3);
    for (std::size_t skew = 0; skew < 3; ++skew) {
      const Bytes window = Bytes(bytes).subspan(skew, size);
      EXPECT_TRUE(IsZero(window));
      for (std::size_t at = 0; at < size; ++at) {
        bytes[skew + at] = std::byte{1};
        EXPECT_FALSE(IsZero(window)) << size << " bytes, the one at " << at;
        bytes[skew + at] = std::byte{0};
      }
    }
  }
}

TEST(IsZeroTest, DoesNotLookAroundItsWindow) {
  const std::vector<std::byte> around{std::byte{1}, std::byte{0}, std::byte{0}, std::byte{1}};
  EXPECT_TRUE(IsZero(Bytes(around).subspan(1, 2)));
}

struct Window {
  uint64_t offset;
  std::vector<std::byte> bytes;
  std::size_t block;
};

std::vector<ZeroRun> Scan(const Window& window, std::size_t shortest, std::size_t at_edge) {
  ZeroRunScanner scanner(window.bytes, ByteOffset{window.offset}, window.block, shortest, at_edge);
  std::vector<ZeroRun> runs;
  for (ZeroRun run; scanner.Next(run);) runs.push_back(run);
  return runs;
}

// All maximal runs of zero blocks, then those that count.
std::vector<ZeroRun> ModelScan(const Window& window, std::size_t shortest, std::size_t at_edge) {
  std::vector<ZeroRun> runs;
  const std::size_t size = window.bytes.size();
  for (std::size_t at = 0; at < size;) {
    const uint64_t disk_end = RoundDown(window.offset + at, window.block) + window.block;
    const std::size_t end = std::min<uint64_t>(size, disk_end - window.offset);
    const bool zero = std::all_of(window.bytes.begin() + at, window.bytes.begin() + end,
                                  [](std::byte byte) { return byte == std::byte{0}; });
    if (zero && !runs.empty() && runs.back().end == at) {
      runs.back().end = end;
    } else if (zero) {
      runs.push_back({at, end});
    }
    at = end;
  }
  std::erase_if(runs, [&](const ZeroRun& run) {
    const bool edge = run.begin == 0 || run.end == size;
    return run.end - run.begin < (edge ? at_edge : shortest);
  });
  return runs;
}

TEST(ZeroRunScannerTest, FindsWhatAFullScanFinds) {
  RandomSource random;
  for (int round = 0; round < 20000; ++round) {
    Window window{random.Below(200), {}, random.PowerOfTwo(1, 16)};
    window.bytes.resize(random.Below(400));
    const uint64_t density = random.Between(1, 60);
    for (std::byte& byte : window.bytes) byte = std::byte{random.OneIn(density)};
    const std::size_t shortest = window.block * random.Between(1, 9);
    ASSERT_EQ(Scan(window, shortest, window.block), ModelScan(window, shortest, window.block));
  }
}

TEST(ZeroRunScannerTest, AllZerosAreOneRun) {
  const Window window{0, std::vector<std::byte>(4096), 512};
  EXPECT_EQ(Scan(window, 4096, 512), (std::vector<ZeroRun>{{0, 4096}}));
}

TEST(ZeroRunScannerTest, NoBytesHaveNoRuns) {
  const Window window{512, {}, 512};
  EXPECT_TRUE(Scan(window, 4096, 512).empty());
}

}  // namespace
}  // namespace gabion::block
