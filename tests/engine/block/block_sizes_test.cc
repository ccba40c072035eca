#include "engine/block/block_sizes.h"

#include <gtest/gtest.h>

#include <string>
#include <variant>

#include "engine/base/align.h"
#include "tests/support/random_source.h"

namespace gabion::block {
namespace {

using test::RandomSource;
using Result = std::variant<EffectiveBlockSizes, BlockSizeError>;

constexpr char kImage[] = "images/a";

Limits Disk(uint64_t size) { return Limits{.size = ByteCount{size}}; }

Limits Filtered(uint64_t size, uint64_t alignment) {
  Limits limits = Disk(size);
  limits.alignment = ByteCount{alignment};
  limits.alignment_from = "align";
  return limits;
}

EffectiveBlockSizes Ok(const Result& result) {
  if (const auto* error = std::get_if<BlockSizeError>(&result)) {
    ADD_FAILURE() << error->reason << ": " << error->message;
    return {};
  }
  return std::get<EffectiveBlockSizes>(result);
}

std::string Reason(const Result& result) {
  const auto* error = std::get_if<BlockSizeError>(&result);
  return error == nullptr ? "OK" : std::string(error->reason);
}

// The golden sizes of unaligned disks.
struct TailCase {
  uint64_t size;
  TailPolicy tail;
  uint32_t minimum;
  uint64_t export_size;  // 0: refused
  uint32_t effective_minimum;
  uint64_t content_size;
};

TEST(BlockSizesTest, TailsOfTheGoldenTable) {
  const TailCase cases[] = {
      {1000, TailPolicy::kExact, 0, 1000, 1, 1000},
      {1000, TailPolicy::kUnspecified, 0, 1000, 1, 1000},
      {1000, TailPolicy::kPadZero, 512, 1024, 512, 1000},
      {1000, TailPolicy::kUnspecified, 512, 1024, 512, 1000},
      {1000, TailPolicy::kPadZero, 4096, 4096, 4096, 1000},
      {1000, TailPolicy::kPadGrow, 4096, 4096, 4096, 1000},
      {1000, TailPolicy::kTruncate, 512, 512, 512, 512},
      {1000, TailPolicy::kTruncate, 4096, 0, 0, 0},
      {1048876, TailPolicy::kExact, 4096, 1048876, 1, 1048876},
      {1048876, TailPolicy::kPadZero, 512, 1049088, 512, 1048876},
      {1048876, TailPolicy::kPadZero, 4096, 1052672, 4096, 1048876},
      {1048876, TailPolicy::kTruncate, 4096, 1048576, 4096, 1048576},
      {1048876, TailPolicy::kRefuse, 4096, 0, 0, 0},
      {1048576, TailPolicy::kRefuse, 4096, 1048576, 4096, 1048576},
      {1000, TailPolicy::kRefuse, 1, 1000, 1, 1000},
  };
  for (const TailCase& test : cases) {
    SCOPED_TRACE(testing::Message() << "size " << test.size << ", minimum " << test.minimum
                                    << ", tail " << static_cast<int>(test.tail));
    BlockSizePolicy policy{.minimum = test.minimum, .tail = test.tail};
    const Result result = ResolveBlockSizes(policy, Disk(test.size), kImage);
    if (test.export_size == 0) {
      EXPECT_EQ(Reason(result), "SIZE_NOT_MULTIPLE_OF_MINIMUM");
      continue;
    }
    const EffectiveBlockSizes sizes = Ok(result);
    EXPECT_EQ(sizes.export_size.value, test.export_size);
    EXPECT_EQ(sizes.minimum.bytes, test.effective_minimum);
    EXPECT_EQ(sizes.content_size.value, test.content_size);
    EXPECT_EQ(sizes.lost.value, test.size - test.content_size);
    EXPECT_EQ(sizes.tail_node.has_value(), test.size != test.export_size);
  }
}

TEST(BlockSizesTest, DefaultsOfAPlainImage) {
  const EffectiveBlockSizes sizes = Ok(ResolveBlockSizes({}, Disk(1000), kImage));
  EXPECT_EQ(sizes.minimum.bytes, 1u);
  EXPECT_EQ(sizes.preferred.bytes, 4096u);
  EXPECT_EQ(sizes.maximum_payload.bytes, 32u << 20);
  EXPECT_EQ(sizes.minimum.origin, SizeOrigin::kDefault);
  EXPECT_EQ(sizes.preferred.origin, SizeOrigin::kDefault);
  EXPECT_EQ(sizes.maximum_payload.origin, SizeOrigin::kDefault);
  EXPECT_EQ(sizes.tail, TailPolicy::kExact);
  EXPECT_EQ(sizes.unaligned_requests, UnalignedRequests::kEmulate);
  EXPECT_EQ(sizes.silent_clients, SilentClients::kAssume512);
}

TEST(BlockSizesTest, NamesWhoDecided) {
  Limits limits = Filtered(1 << 20, 4096);
  limits.preferred = ByteCount{65536};
  limits.preferred_from = kImage;
  const EffectiveBlockSizes sizes =
      Ok(ResolveBlockSizes({.maximum_payload = 1 << 20}, limits, kImage));
  EXPECT_EQ(sizes.minimum.bytes, 4096u);
  EXPECT_EQ(sizes.minimum.origin, SizeOrigin::kFilter);
  EXPECT_EQ(sizes.minimum.determined_by, "align");
  EXPECT_EQ(sizes.preferred.bytes, 65536u);
  EXPECT_EQ(sizes.preferred.origin, SizeOrigin::kStorage);
  EXPECT_EQ(sizes.preferred.determined_by, kImage);
  EXPECT_EQ(sizes.maximum_payload.origin, SizeOrigin::kPolicy);
}

TEST(BlockSizesTest, LargeMinimumRaisesThePreferredSize) {
  const EffectiveBlockSizes sizes =
      Ok(ResolveBlockSizes({.minimum = 65536}, Disk(1 << 20), kImage));
  EXPECT_EQ(sizes.preferred.bytes, 65536u);
  EXPECT_EQ(sizes.preferred.origin, SizeOrigin::kPolicy);
}

TEST(BlockSizesTest, AlignmentBeyondTheProtocolIsOnlyPreferred) {
  const EffectiveBlockSizes sizes = Ok(ResolveBlockSizes({}, Filtered(4 << 20, 1 << 20), kImage));
  EXPECT_EQ(sizes.minimum.bytes, 1u);
  EXPECT_EQ(sizes.preferred.bytes, 1u << 20);
  EXPECT_EQ(sizes.preferred.determined_by, "align");
  const EffectiveBlockSizes huge = Ok(ResolveBlockSizes({}, Filtered(64 << 20, 16 << 20), kImage));
  EXPECT_EQ(huge.preferred.bytes, 2u << 20);
}

TEST(BlockSizesTest, ASmallMaximumLowersADerivedPreferredSize) {
  Limits limits = Disk(8 << 20);
  limits.preferred = ByteCount{2 << 20};
  const EffectiveBlockSizes sizes =
      Ok(ResolveBlockSizes({.maximum_payload = 3 << 19}, limits, kImage));
  EXPECT_EQ(sizes.preferred.bytes, 1u << 20);
}

struct ErrorCase {
  BlockSizePolicy policy;
  const char* reason;
  const char* field;
};

TEST(BlockSizesTest, ErrorsNameReasonAndField) {
  const ErrorCase cases[] = {
      {{.minimum = 3}, "BLOCK_SIZE_NOT_POWER_OF_TWO", "minimum_bytes"},
      {{.minimum = 100000}, "BLOCK_SIZE_NOT_POWER_OF_TWO", "minimum_bytes"},
      {{.minimum = 131072}, "BLOCK_SIZE_OUT_OF_RANGE", "minimum_bytes"},
      {{.minimum = 0x80000000}, "BLOCK_SIZE_OUT_OF_RANGE", "minimum_bytes"},
      {{.preferred = 5000}, "BLOCK_SIZE_NOT_POWER_OF_TWO", "preferred_bytes"},
      {{.preferred = 256}, "BLOCK_SIZE_OUT_OF_RANGE", "preferred_bytes"},
      {{.preferred = 64 << 20}, "BLOCK_SIZE_OUT_OF_RANGE", "preferred_bytes"},
      {{.minimum = 4096, .preferred = 512}, "BLOCK_SIZE_ORDER", "preferred_bytes"},
      {{.maximum_payload = 65536}, "BLOCK_SIZE_OUT_OF_RANGE", "maximum_payload_bytes"},
      {{.preferred = 4 << 20, .maximum_payload = 1 << 20},
       "BLOCK_SIZE_ORDER",
       "maximum_payload_bytes"},
      {{.minimum = 4096, .maximum_payload = (1 << 20) + 512},
       "BLOCK_SIZE_ORDER",
       "maximum_payload_bytes"},
      {{.maximum_payload = 0xfffffffe}, "OK", ""},
      {{.maximum_payload = kNoMaximumPayload}, "OK", ""},
      {{.minimum = 4096, .maximum_payload = kNoMaximumPayload}, "OK", ""},
      {{.minimum = 4096, .tail = TailPolicy::kRefuse}, "SIZE_NOT_MULTIPLE_OF_MINIMUM", "tail"},
  };
  for (const ErrorCase& test : cases) {
    const Result result = ResolveBlockSizes(test.policy, Disk((1 << 20) + 7), kImage);
    EXPECT_EQ(Reason(result), test.reason);
    if (const auto* error = std::get_if<BlockSizeError>(&result)) {
      EXPECT_EQ(error->field, test.field);
      EXPECT_FALSE(error->metadata.empty());
    }
  }
}

TEST(BlockSizesTest, ErrorOfARefusedSizeIsAFailedPrecondition) {
  const Result result =
      ResolveBlockSizes({.minimum = 512, .tail = TailPolicy::kRefuse}, Disk(1000), kImage);
  const BlockSizeError& error = std::get<BlockSizeError>(result);
  EXPECT_EQ(error.code, absl::StatusCode::kFailedPrecondition);
  const std::vector<std::pair<std::string, std::string>> expected{{"size", "1000"},
                                                                  {"minimum", "512"}};
  EXPECT_EQ(error.metadata, expected);
}

TEST(BlockSizesTest, RejectNeedsAMinimumThatStorageCanDo) {
  const UnalignedRequests modes[] = {UnalignedRequests::kReject, UnalignedRequests::kDisconnect};
  for (const UnalignedRequests mode : modes) {
    BlockSizePolicy policy{.minimum = 512, .unaligned_requests = mode};
    const Result result = ResolveBlockSizes(policy, Filtered(1 << 20, 4096), kImage);
    EXPECT_EQ(Reason(result), "BLOCK_SIZE_BELOW_STORAGE");
    policy.minimum = 4096;
    Ok(ResolveBlockSizes(policy, Filtered(1 << 20, 4096), kImage));
  }
  Ok(ResolveBlockSizes({.minimum = 512}, Filtered(1 << 20, 4096), kImage));
}

TEST(BlockSizesTest, PaddingBeyondTheLargestOffsetIsRefused) {
  const Result result = ResolveBlockSizes({.minimum = 4096}, Disk((uint64_t{1} << 63) - 1), kImage);
  EXPECT_EQ(Reason(result), "SIZE_OUT_OF_RANGE");
}

uint32_t RandomSize(RandomSource& random) {
  if (random.OneIn(3)) return 0;
  if (random.OneIn(8)) return static_cast<uint32_t>(random.Next());
  const uint64_t power = random.PowerOfTwo(1, uint64_t{1} << 31);
  return static_cast<uint32_t>(random.OneIn(4) ? power * random.Between(1, 3) : power);
}

TEST(BlockSizesPropertyTest, WhateverIsAdvertisedIsATripleThatClientsTake) {
  RandomSource random;
  int accepted = 0;
  for (int round = 0; round < 50000; ++round) {
    BlockSizePolicy policy;
    policy.minimum = random.OneIn(2) ? random.PowerOfTwo(1, 65536) : RandomSize(random);
    policy.preferred = random.OneIn(2) ? 0 : RandomSize(random);
    policy.maximum_payload = random.OneIn(2) ? 0 : RandomSize(random);
    policy.unaligned_requests = static_cast<UnalignedRequests>(random.Below(4));
    policy.silent_clients = static_cast<SilentClients>(random.Below(4));
    policy.tail = static_cast<TailPolicy>(random.Below(6));
    Limits limits =
        Filtered(random.Below(uint64_t{1} << random.Between(1, 50)), random.PowerOfTwo(1, 4 << 20));
    limits.preferred = ByteCount{random.OneIn(2) ? 0 : random.PowerOfTwo(1, 16 << 20)};
    const Result result = ResolveBlockSizes(policy, limits, kImage);
    if (const auto* error = std::get_if<BlockSizeError>(&result)) {
      EXPECT_FALSE(error->message.empty());
      EXPECT_NE(error->code, absl::StatusCode::kOk);
      continue;
    }
    ++accepted;
    const EffectiveBlockSizes& sizes = std::get<EffectiveBlockSizes>(result);
    const uint64_t minimum = sizes.minimum.bytes;
    const uint64_t preferred = sizes.preferred.bytes;
    const uint64_t maximum = sizes.maximum_payload.bytes;
    ASSERT_TRUE(IsPowerOfTwo(minimum) && minimum <= 65536);
    ASSERT_TRUE(IsPowerOfTwo(preferred) && preferred >= 512 && preferred >= minimum);
    ASSERT_LE(preferred, maximum);
    ASSERT_TRUE(maximum == kNoMaximumPayload || maximum % minimum == 0);
    ASSERT_EQ(sizes.export_size.value % minimum, 0u);
    ASSERT_LE(sizes.content_size, sizes.export_size);
    ASSERT_EQ(sizes.content_size + sizes.lost, limits.size);
    ASSERT_TRUE(sizes.export_size.value > 0 || limits.size.value == 0);
    ASSERT_NE(sizes.tail, TailPolicy::kUnspecified);
  }
  EXPECT_GT(accepted, 1000);
}

}  // namespace
}  // namespace gabion::block
