#include "engine/nbd/protocol/export_info.h"

#include <gtest/gtest.h>

namespace gabion::nbd {
namespace {

// Bits as numbered by the protocol document.
constexpr uint16_t Bits(std::initializer_list<int> bits) {
  uint16_t flags = 0;
  for (int bit : bits) flags |= static_cast<uint16_t>(1 << bit);
  return flags;
}

TEST(TransmissionFlagsTest, WritableExport) {
  EXPECT_EQ(TransmissionFlags(ExportTraits{}, false), Bits({0, 2, 3, 5, 6, 8, 10, 11}));
}

TEST(TransmissionFlagsTest, DfComesWithStructuredReplies) {
  EXPECT_EQ(TransmissionFlags(ExportTraits{}, true), Bits({0, 2, 3, 5, 6, 7, 8, 10, 11}));
}

TEST(TransmissionFlagsTest, ReadOnlyExportAdvertisesNothingThatWrites) {
  ExportTraits traits;
  traits.read_only = true;
  EXPECT_EQ(TransmissionFlags(traits, true), Bits({0, 1, 2, 3, 7, 8, 10}));
}

TEST(TransmissionFlagsTest, FastZeroNeedsWriteZeroes) {
  ExportTraits traits;
  traits.can_zero = false;
  EXPECT_EQ(TransmissionFlags(traits, false), Bits({0, 2, 3, 5, 8, 10}));
  traits.can_zero = true;
  traits.can_fast_zero = false;
  EXPECT_EQ(TransmissionFlags(traits, false), Bits({0, 2, 3, 5, 6, 8, 10}));
}

TEST(TransmissionFlagsTest, OptionalFeatures) {
  ExportTraits traits;
  traits.rotational = true;
  traits.multi_conn = traits.can_trim = traits.can_cache = false;
  EXPECT_EQ(TransmissionFlags(traits, false), Bits({0, 2, 3, 4, 6, 11}));
}

}  // namespace
}  // namespace gabion::nbd
