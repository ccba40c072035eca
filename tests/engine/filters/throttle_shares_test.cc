// What throttles of one group get of what there is.
#include <gtest/gtest.h>

#include <chrono>
#include <vector>

#include "tests/engine/filters/throttle_fixture.h"

namespace gabion::filters {
namespace {

constexpr uint64_t kMB = 1'000'000;

struct Load {
  uint64_t bytes;
  int depth;
};

class ThrottleSharesTest : public testing::Test {
 protected:
  // What each load reads in ten seconds under `options`.
  std::vector<uint64_t> Measure(const ThrottleOptions& options, const std::vector<Load>& loads) {
    ThrottleFixture fixture;
    std::vector<ThrottledDisk*> disks;
    for (std::size_t i = 0; i < loads.size(); ++i) disks.push_back(&fixture.AddDisk());
    fixture.Configure(options);
    for (std::size_t i = 0; i < loads.size(); ++i) {
      disks[i]->StartReaders(loads[i].bytes, loads[i].depth);
    }
    fixture.Advance(1);  // what is there at the beginning is whose came first
    std::vector<uint64_t> before;
    for (const ThrottledDisk* disk : disks) before.push_back(disk->read);
    fixture.Advance(10);
    std::vector<uint64_t> read;
    for (std::size_t i = 0; i < loads.size(); ++i) read.push_back(disks[i]->read - before[i]);
    return read;
  }

  void ExpectEqualBytes(uint64_t rate, const std::vector<Load>& loads) {
    const std::vector<uint64_t> read = Measure({.total_bytes = {.per_second = rate}}, loads);
    const double share = 10.0 * static_cast<double>(rate) / static_cast<double>(loads.size());
    double all = 0;
    for (std::size_t i = 0; i < loads.size(); ++i) {
      SCOPED_TRACE(testing::Message() << "disk " << i << " of " << loads.size() << ", " << rate
                                      << " per second, requests of " << loads[i].bytes << ", depth "
                                      << loads[i].depth);
      EXPECT_NEAR(static_cast<double>(read[i]), share, 0.1 * share);
      all += static_cast<double>(read[i]);
    }
    EXPECT_NEAR(all, 10.0 * static_cast<double>(rate), 0.3 * static_cast<double>(rate));
  }
};

TEST_F(ThrottleSharesTest, TwoGetTheSameWhateverTheirRequests) {
  const Load loads[] = {{4 * kKiB, 1}, {4 * kKiB, 32}, {64 * kKiB, 4}, {kMiB, 1}, {kMiB, 32}};
  for (const Load& a : loads) {
    for (const Load& b : loads) {
      // Who is there first has no advantage, so either order will do.
      if (a.bytes * a.depth <= b.bytes * b.depth) ExpectEqualBytes(50 * kMB, {a, b});
    }
  }
  ExpectEqualBytes(200 * kMB, {loads[0], loads[4]});
  ExpectEqualBytes(200 * kMB, {loads[4], loads[1]});
}

TEST_F(ThrottleSharesTest, ThreeGetTheSameWhateverTheirRequests) {
  ExpectEqualBytes(100 * kMB, {{4 * kKiB, 1}, {64 * kKiB, 8}, {kMiB, 32}});
  ExpectEqualBytes(100 * kMB, {{kMiB, 32}, {kMiB, 1}, {4 * kKiB, 2}});
  ExpectEqualBytes(100 * kMB, {{kMiB, 64}, {16 * kKiB, 1}, {16 * kKiB, 1}});
}

TEST_F(ThrottleSharesTest, ManyGetTheSame) {
  std::vector<Load> loads;
  for (int i = 0; i < 20; ++i)
    loads.push_back(i % 2 == 0 ? Load{4 * kKiB, 2} : Load{256 * kKiB, 8});
  ExpectEqualBytes(100 * kMB, loads);
}

TEST_F(ThrottleSharesTest, OperationsAreSharedInOperations) {
  const std::vector<uint64_t> read = Measure({.total_operations = {.per_second = 400}},
                                             {{4 * kKiB, 1}, {kMiB, 16}, {64 * kKiB, 4}});
  const double each = 4000.0 / 3;
  EXPECT_NEAR(static_cast<double>(read[0] / (4 * kKiB)), each, 0.1 * each);
  EXPECT_NEAR(static_cast<double>(read[1] / kMiB), each, 0.1 * each);
  EXPECT_NEAR(static_cast<double>(read[2] / (64 * kKiB)), each, 0.1 * each);
}

TEST_F(ThrottleSharesTest, FewOperationsAreSharedToo) {
  const std::vector<uint64_t> read =
      Measure({.total_operations = {.per_second = 8}}, {{4 * kKiB, 1}, {kMiB, 16}});
  EXPECT_NEAR(static_cast<double>(read[0] / (4 * kKiB)), 40, 4);
  EXPECT_NEAR(static_cast<double>(read[1] / kMiB), 40, 4);
}

TEST_F(ThrottleSharesTest, OversizeRequestsGetNoMoreThanOthers) {
  // A long request is worth most of a second, so one more or less shows.
  const std::vector<uint64_t> read =
      Measure({.total_bytes = {.per_second = 2 * kMB}}, {{4 * kKiB, 4}, {kMiB, 4}});
  EXPECT_NEAR(static_cast<double>(read[0]), 10e6, 1e6);
  EXPECT_NEAR(static_cast<double>(read[1]), 10e6, 1.1e6);
}

TEST_F(ThrottleSharesTest, WhatOneDoesNotUseTheOthersGet) {
  ThrottleFixture fixture;
  ThrottledDisk& light = fixture.AddDisk();
  ThrottledDisk& small = fixture.AddDisk();
  ThrottledDisk& large = fixture.AddDisk();
  fixture.Configure({.total_bytes = {.per_second = 50 * kMB}});
  small.StartReaders(4 * kKiB, 1);
  large.StartReaders(kMiB, 16);
  std::vector<std::byte> buffer(4096);
  uint64_t at_once = 0;
  for (int i = 0; i < 1000; ++i) {
    fixture.Advance(0.01);
    Task<absl::Status> read = light.node->Read(Range(0, 4096), buffer);
    if (read.done()) ++at_once;
    while (!read.done()) fixture.Advance(0.001);
  }
  const double each =
      25e6 * std::chrono::duration<double>(fixture.clock.Now() - runtime::Instant{}).count();
  EXPECT_NEAR(static_cast<double>(small.read), each, 0.1 * each);
  EXPECT_NEAR(static_cast<double>(large.read), each, 0.1 * each);
  EXPECT_GE(at_once, 800u);  // who takes little finds something
}

TEST_F(ThrottleSharesTest, WhoComesLaterGetsTheSameFromThenOn) {
  ThrottleFixture fixture;
  ThrottledDisk& first = fixture.AddDisk();
  ThrottledDisk& second = fixture.AddDisk();
  fixture.Configure({.read_bytes = {.per_second = 50 * kMB}});
  first.StartReaders(kMiB, 16);
  fixture.Advance(20);
  EXPECT_NEAR(static_cast<double>(first.read), 1000e6, 30e6);
  second.StartReaders(4 * kKiB, 4);
  const uint64_t before = first.read;
  fixture.Advance(5);
  EXPECT_NEAR(static_cast<double>(first.read - before), 125e6, 12e6);
  EXPECT_NEAR(static_cast<double>(second.read), 125e6, 12e6);
  second.Stop();
  fixture.Advance(1);
  const uint64_t later = first.read;
  fixture.Advance(5);
  EXPECT_NEAR(static_cast<double>(first.read - later), 250e6, 12e6);
}

TEST_F(ThrottleSharesTest, WhoComesBackHasNotSavedUpAShare) {
  ThrottleFixture fixture;
  ThrottledDisk& first = fixture.AddDisk();
  ThrottledDisk& second = fixture.AddDisk();
  fixture.Configure({.read_bytes = {.per_second = 50 * kMB}});
  second.StartReaders(kMiB, 16);
  fixture.Advance(1);
  second.Stop();
  first.StartReaders(4 * kKiB, 1);
  fixture.Advance(10.1);
  second.Go();
  second.StartReaders(kMiB, 16);
  const uint64_t before = first.read;
  fixture.Advance(1);
  EXPECT_NEAR(static_cast<double>(first.read - before), 25e6, 4e6);
}

TEST_F(ThrottleSharesTest, OneOfThoseThatShareABurstGetsAsMuchAsTheOther) {
  ThrottleFixture fixture;
  ThrottledDisk& a = fixture.AddDisk();
  ThrottledDisk& b = fixture.AddDisk();
  fixture.Configure({.read_bytes = {.per_second = 10 * kMB,
                                    .burst_per_second = 100 * kMB,
                                    .burst_length = std::chrono::seconds(3)}});
  a.StartReaders(kMiB, 16);
  b.StartReaders(4 * kKiB, 1);
  fixture.Advance(3);
  EXPECT_NEAR(static_cast<double>(a.read + b.read), 300e6, 15e6);
  EXPECT_NEAR(static_cast<double>(a.read), 150e6, 20e6);
  fixture.Advance(10);
  EXPECT_NEAR(static_cast<double>(a.read + b.read), 400e6, 15e6);
}

}  // namespace
}  // namespace gabion::filters
