// Randomness for tests that replays: one seed per process, printed, taken from GABION_SEED if set.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <span>

#include "engine/base/units.h"

namespace gabion::test {

// The process's seed; the first call prints it, so that a crash can be replayed too.
uint64_t ProcessSeed();

// A stream of random numbers that depends on the seed and the name of the running test only, so
// that a single test replays with --gtest_filter. Made in a test's body.
class RandomSource {
 public:
  RandomSource();
  explicit RandomSource(uint64_t seed) : engine_(seed) {}

  uint64_t Next() { return engine_(); }
  // Uniform in [0, bound). REQUIRES: bound > 0.
  uint64_t Below(uint64_t bound) {
    return std::uniform_int_distribution<uint64_t>(0, bound - 1)(engine_);
  }
  // Uniform in [low, high].
  uint64_t Between(uint64_t low, uint64_t high) {
    return std::uniform_int_distribution<uint64_t>(low, high)(engine_);
  }
  bool OneIn(uint64_t n) { return Below(n) == 0; }
  // A power of two in [low, high], each as likely.
  uint64_t PowerOfTwo(uint64_t low, uint64_t high);
  template <typename T, std::size_t N>
  const T& Pick(const T (&choices)[N]) {
    return choices[Below(N)];
  }
  // A range within [0, size), often short, often touching the ends; not empty. REQUIRES: size > 0.
  ByteRange RangeWithin(uint64_t size);
  // Fills with bytes that are never zero.
  void FillNonZero(std::span<std::byte> bytes);

  // For ReadyQueue::SetChooser(&RandomSource::Choose, &random).
  static std::size_t Choose(void* random, std::size_t count) {
    return static_cast<RandomSource*>(random)->Below(count);
  }

 private:
  std::mt19937_64 engine_;
};

}  // namespace gabion::test
