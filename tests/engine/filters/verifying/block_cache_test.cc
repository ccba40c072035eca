#include "engine/filters/verifying/block_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "tests/support/random_source.h"

namespace gabion::filters::verifying {
namespace {

std::vector<std::byte> Filled(uint8_t value) { return std::vector<std::byte>(4, std::byte{value}); }

bool Has(BlockCache& cache, uint64_t place, uint8_t value) {
  return std::ranges::equal(cache.Find(place), Filled(value));
}

TEST(BlockCacheTest, WhatHasNotBeenUsedForLongestGoes) {
  BlockCache cache(2);
  EXPECT_TRUE(cache.Find(1).empty());
  EXPECT_TRUE(std::ranges::equal(cache.Keep(1, Filled(1)), Filled(1)));
  cache.Keep(2, Filled(2));
  EXPECT_TRUE(Has(cache, 1, 1));
  cache.Keep(3, Filled(3));
  EXPECT_TRUE(cache.Find(2).empty());
  EXPECT_TRUE(Has(cache, 1, 1));
  EXPECT_TRUE(Has(cache, 3, 3));
}

TEST(BlockCacheTest, ABlockIsHereOnce) {
  BlockCache cache(2);
  cache.Keep(1, Filled(1));
  cache.Keep(2, Filled(2));
  cache.Keep(1, Filled(9));
  EXPECT_TRUE(Has(cache, 1, 9));
  cache.Keep(3, Filled(3));
  EXPECT_TRUE(Has(cache, 1, 9));
  EXPECT_TRUE(cache.Find(2).empty());
}

TEST(BlockCachePropertyTest, AnswersAsAListOfWhatWasUsedLast) {
  test::RandomSource random;
  const std::size_t most = random.Between(1, 20);
  BlockCache cache(most);
  std::vector<std::pair<uint64_t, uint8_t>> model;  // used last in front
  for (int step = 0; step < 5000; ++step) {
    const uint64_t place = random.Below(30);
    const auto at = std::ranges::find(model, place, &std::pair<uint64_t, uint8_t>::first);
    if (random.OneIn(2)) {
      const auto value = static_cast<uint8_t>(random.Below(256));
      cache.Keep(place, Filled(value));
      if (at != model.end()) model.erase(at);
      model.insert(model.begin(), {place, value});
      if (model.size() > most) model.pop_back();
    } else if (at == model.end()) {
      ASSERT_TRUE(cache.Find(place).empty());
    } else {
      ASSERT_TRUE(Has(cache, place, at->second));
      std::rotate(model.begin(), at, at + 1);
    }
  }
}

}  // namespace
}  // namespace gabion::filters::verifying
