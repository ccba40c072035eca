#include "tests/support/random_source.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <string_view>

namespace gabion::test {
namespace {

uint64_t ChooseSeed() {
  const char* given = std::getenv("GABION_SEED");
  const uint64_t seed =
      given != nullptr ? std::strtoull(given, nullptr, 0) : std::random_device()() + uint64_t{1};
  std::fprintf(stderr, "GABION_SEED=%llu\n", static_cast<unsigned long long>(seed));
  return seed;
}

// FNV-1a: the same on every machine, unlike std::hash.
uint64_t HashText(std::string_view text, uint64_t hash) {
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return hash;
}

uint64_t SeedOfRunningTest() {
  uint64_t hash = 0xcbf29ce484222325u ^ ProcessSeed();
  const testing::TestInfo* info = testing::UnitTest::GetInstance()->current_test_info();
  if (info == nullptr) return hash;
  return HashText(info->name(), HashText(info->test_suite_name(), hash));
}

}  // namespace

uint64_t ProcessSeed() {
  static const uint64_t seed = ChooseSeed();
  return seed;
}

RandomSource::RandomSource() : engine_(SeedOfRunningTest()) {}

uint64_t RandomSource::PowerOfTwo(uint64_t low, uint64_t high) {
  return uint64_t{1} << Between(std::countr_zero(low), std::countr_zero(high));
}

ByteRange RandomSource::RangeWithin(uint64_t size) {
  const uint64_t longest = OneIn(3) ? size : std::min<uint64_t>(size, PowerOfTwo(1, 1 << 13));
  const uint64_t length = Between(1, longest);
  const uint64_t room = size - length;
  if (OneIn(8)) return Range(0, length);
  if (OneIn(8)) return Range(room, length);
  return Range(Between(0, room), length);
}

void RandomSource::FillNonZero(std::span<std::byte> bytes) {
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(Between(1, 255));
}

}  // namespace gabion::test
