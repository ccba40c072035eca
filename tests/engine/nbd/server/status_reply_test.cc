#include "engine/nbd/server/status_reply.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "engine/base/align.h"
#include "engine/block/block_sizes.h"
#include "engine/block/extent_algebra.h"
#include "tests/support/random_source.h"

namespace gabion::nbd {
namespace {

using block::Extent;
using block::ExtentKind;
using block::ExtentList;
using block::MergeOperator;
using test::RandomSource;

constexpr MergeOperator kAll[] = {MergeOperator::kAllocation, MergeOperator::kDepthMin,
                                  MergeOperator::kDepthMax};

using Descriptors = std::vector<StatusDescriptor>;

// Answers a plan from a list of atoms that covers a disk, `step` atoms at a time.
std::vector<Descriptors> Ask(const ExtentList& disk, const StatusRequest& request,
                             const StatusOptions& options, std::size_t step = 2) {
  StatusPlan plan(request, options, kAll);
  while (!plan.done()) {
    const ByteRange wanted = plan.wanted();
    EXPECT_FALSE(wanted.empty());
    ExtentList atoms = block::Clip(disk, wanted);
    EXPECT_FALSE(atoms.empty());
    if (atoms.size() > step) atoms.resize(step);
    plan.Feed(atoms);
  }
  std::vector<Descriptors> answers(std::size(kAll));
  for (std::size_t i = 0; i < answers.size(); ++i) {
    EXPECT_TRUE(plan.has_answer(i));
    plan.AppendDescriptors(i, answers[i]);
  }
  return answers;
}

Extent Atom(uint64_t offset, uint64_t length, ExtentKind kind, uint32_t layer) {
  return Extent{.range = Range(offset, length), .kind = kind, .layer = layer};
}

constexpr ExtentKind kD = ExtentKind::kData;
constexpr ExtentKind kZ = ExtentKind::kZero;
constexpr ExtentKind kN = ExtentKind::kUnallocated;

StatusOptions Whole(uint64_t size, uint64_t granule, uint32_t layers) {
  return {.granule = ByteCount{granule},
          .export_size = ByteCount{size},
          .content_size = ByteCount{size},
          .layers = layers};
}

// The seed: data at 0 and 1024 in the backing image, nothing else anywhere.
constexpr uint64_t kSeedSize = 104857600;
ExtentList SeedDisk() {
  return {Atom(0, 512, kD, 2), Atom(512, 512, kN, 0), Atom(1024, 512, kD, 2),
          Atom(1536, kSeedSize - 1536, kN, 0)};
}

TEST(StatusReplyGoldenTest, Seed) {
  const uint64_t fine_granules[] = {1, 512};
  for (const uint64_t granule : fine_granules) {
    const auto got = Ask(SeedDisk(), {.range = Range(0, kSeedSize)}, Whole(kSeedSize, granule, 2));
    EXPECT_EQ(got[0], (Descriptors{{512, 0}, {512, 3}, {512, 0}, {104856064, 3}}));
    EXPECT_EQ(got[1], (Descriptors{{512, 2}, {512, 0}, {512, 2}, {104856064, 0}}));
    EXPECT_EQ(got[2], (Descriptors{{512, 2}, {512, 0}, {512, 2}, {104856064, 0}}));
  }
  const auto got = Ask(SeedDisk(), {.range = Range(0, kSeedSize)}, Whole(kSeedSize, 4096, 2));
  EXPECT_EQ(got[0], (Descriptors{{4096, 0}, {104853504, 3}}));
  EXPECT_EQ(got[1], (Descriptors{{4096, 2}, {104853504, 0}}));
  EXPECT_EQ(got[2], (Descriptors{{4096, 3}, {104853504, 0}}));
}

TEST(StatusReplyGoldenTest, SeedWithReqOne) {
  const StatusRequest request{.range = Range(0, 65536), .one = true};
  const auto fine = Ask(SeedDisk(), request, Whole(kSeedSize, 512, 2));
  EXPECT_EQ(fine[0], (Descriptors{{512, 0}}));
  EXPECT_EQ(fine[1], (Descriptors{{512, 2}}));
  const auto coarse = Ask(SeedDisk(), request, Whole(kSeedSize, 4096, 2));
  EXPECT_EQ(coarse[0], (Descriptors{{4096, 0}}));
  EXPECT_EQ(coarse[1], (Descriptors{{4096, 2}}));
}

TEST(StatusReplyGoldenTest, MixedLayers) {
  const ExtentList disk{Atom(0, 512, kD, 2), Atom(512, 512, kD, 1), Atom(1024, 512, kD, 2),
                        Atom(1536, kSeedSize - 1536, kN, 0)};
  const StatusRequest request{.range = Range(0, kSeedSize)};
  const auto fine = Ask(disk, request, Whole(kSeedSize, 1, 2));
  EXPECT_EQ(fine[0], (Descriptors{{1536, 0}, {104856064, 3}}));
  EXPECT_EQ(fine[1], (Descriptors{{512, 2}, {512, 1}, {512, 2}, {104856064, 0}}));
  const auto coarse = Ask(disk, request, Whole(kSeedSize, 4096, 2));
  EXPECT_EQ(coarse[0], (Descriptors{{4096, 0}, {104853504, 3}}));
  EXPECT_EQ(coarse[1], (Descriptors{{4096, 1}, {104853504, 0}}));
  EXPECT_EQ(coarse[2], (Descriptors{{4096, 3}, {104853504, 0}}));
}

TEST(StatusReplyGoldenTest, ShortBackingImage) {
  const ExtentList disk{Atom(0, 700, kD, 2), Atom(700, 64836, kZ, 2)};
  const std::pair<uint64_t, Descriptors> cases[] = {
      {1, {{700, 0}, {64836, 3}}}, {512, {{1024, 0}, {64512, 3}}}, {4096, {{4096, 0}, {61440, 3}}}};
  for (const auto& [granule, expected] : cases) {
    const auto got = Ask(disk, {.range = Range(0, 65536)}, Whole(65536, granule, 2));
    EXPECT_EQ(got[0], expected);
    EXPECT_EQ(got[1], (Descriptors{{65536, 2}}));
  }
}

struct TailCase {
  uint64_t size;
  block::TailPolicy tail;
  uint32_t minimum;
  Descriptors expected;
};

TEST(StatusReplyGoldenTest, Tails) {
  const TailCase cases[] = {
      {1000, block::TailPolicy::kExact, 0, {{1000, 0}}},
      {1000, block::TailPolicy::kPadZero, 512, {{1024, 0}}},
      {1000, block::TailPolicy::kPadZero, 4096, {{4096, 0}}},
      {1000, block::TailPolicy::kTruncate, 512, {{512, 0}}},
      {1048876, block::TailPolicy::kExact, 0, {{1048576, 3}, {300, 0}}},
      {1048876, block::TailPolicy::kPadZero, 512, {{1048576, 3}, {512, 0}}},
      {1048876, block::TailPolicy::kPadZero, 4096, {{1048576, 3}, {4096, 0}}},
      {1048876, block::TailPolicy::kTruncate, 4096, {{1048576, 3}}},
  };
  for (const TailCase& test : cases) {
    const uint64_t hole = test.size == 1000 ? 0 : 1048576;
    ExtentList disk;
    AppendExtent(disk, Atom(0, hole, kZ, 1));
    AppendExtent(disk, Atom(hole, test.size - hole, kD, 1));
    const auto sizes = std::get<block::EffectiveBlockSizes>(block::ResolveBlockSizes(
        {.minimum = test.minimum, .tail = test.tail}, {.size = ByteCount{test.size}}, "images/a"));
    const StatusOptions options{.granule = ByteCount{sizes.minimum.bytes},
                                .export_size = sizes.export_size,
                                .content_size = sizes.content_size,
                                .layers = 1};
    const auto got = Ask(disk, {.range = Range(0, sizes.export_size.value)}, options);
    EXPECT_EQ(got[0], test.expected) << test.size << " bytes, minimum " << test.minimum;
  }
}

TEST(StatusReplyGoldenTest, FourGigabytes) {
  const uint64_t size = 6 * kGiB;
  const ExtentList disk{Atom(0, size, kZ, 1)};
  const auto got = Ask(disk, {.range = Range(0, 4294966784)}, Whole(size, 512, 1));
  EXPECT_EQ(got[0], (Descriptors{{kLongestCompactDescriptor, 3}, {64 * kKiB - 512, 3}}));
  const auto odd = Ask(disk, {.range = Range(0, 0xffffffff)}, Whole(size, 512, 1));
  EXPECT_EQ(odd[0], (Descriptors{{kLongestCompactDescriptor, 3}, {64 * kKiB, 3}}));
  const auto late = Ask(disk, {.range = Range(100, 0xffffffff)}, Whole(size, 512, 1));
  EXPECT_EQ(late[0], (Descriptors{{kLongestCompactDescriptor - 100, 3}, {64 * kKiB + 512, 3}}));
  const auto wide = Ask(disk, {.range = Range(0, size), .wide = true}, Whole(size, 512, 1));
  EXPECT_EQ(wide[0], (Descriptors{{size, 3}}));
}

TEST(StatusReplyTest, EndsAtTheCapOfDescriptors) {
  ExtentList disk;
  for (uint64_t at = 0; at < 64; ++at) AppendExtent(disk, Atom(at, 1, at % 2 ? kD : kZ, 1));
  StatusOptions options = Whole(64, 1, 1);
  options.most_descriptors = 3;
  const auto got = Ask(disk, {.range = Range(0, 64)}, options);
  EXPECT_EQ(got[0], (Descriptors{{1, 3}, {1, 0}, {1, 3}}));
  EXPECT_EQ(got[1], (Descriptors{{64, 1}})) << "a context that is not at the cap goes on";
}

TEST(StatusReplyTest, TheBoundOnWorkEndsTheReplyOnAUnit) {
  ExtentList disk;
  for (uint64_t at = 0; at < 64; ++at) AppendExtent(disk, Atom(at, 1, at % 2 ? kD : kZ, 1));
  StatusOptions options = Whole(64, 8, 1);
  options.most_atoms = 3;
  EXPECT_EQ(Ask(disk, {.range = Range(5, 50)}, options)[0], (Descriptors{{3, 0}}));
  options.most_atoms = 20;
  EXPECT_EQ(Ask(disk, {.range = Range(5, 50)}, options)[0], (Descriptors{{11, 0}}));
}

TEST(StatusReplyTest, ReqOneAsksForNoMoreThanTheFirstRun) {
  const ExtentList disk{Atom(0, 8, kD, 1), Atom(8, 8, kZ, 2), Atom(16, 48, kD, 1)};
  StatusPlan plan({.range = Range(0, 64), .one = true}, Whole(64, 8, 2), kAll);
  plan.Feed({disk[0], disk[1]});
  EXPECT_TRUE(plan.done());
  EXPECT_TRUE(plan.wanted().empty());
}

TEST(StatusReplyTest, UnknownStatusIsDataAndHasNoDepth) {
  StatusPlan plan({.range = Range(0, 64)}, Whole(64, 8, 2), kAll);
  plan.FeedUnknown();
  ASSERT_TRUE(plan.done());
  ASSERT_TRUE(plan.has_answer(0));
  Descriptors got;
  plan.AppendDescriptors(0, got);
  EXPECT_EQ(got, (Descriptors{{64, 0}}));
  EXPECT_FALSE(plan.has_answer(1));
  EXPECT_FALSE(plan.has_answer(2));
}

TEST(StatusReplyTest, DepthsEndWhereKnowledgeEnds) {
  StatusPlan plan({.range = Range(0, 64)}, Whole(64, 8, 2), kAll);
  plan.Feed({Atom(0, 20, kZ, 2)});
  plan.FeedUnknown();
  Descriptors allocation;
  plan.AppendDescriptors(0, allocation);
  EXPECT_EQ(allocation, (Descriptors{{16, 3}, {48, 0}}));
  Descriptors depth;
  plan.AppendDescriptors(1, depth);
  EXPECT_EQ(depth, (Descriptors{{16, 2}}));
}

TEST(StatusReplyTest, ValuesOfABitmapAreMergedBesideTheAtoms) {
  const MergeOperator contexts[] = {MergeOperator::kAllocation, MergeOperator::kAny};
  StatusPlan plan({.range = Range(10, 50)}, Whole(64, 8, 1), contexts);
  plan.Feed({Atom(8, 56, kD, 1)});
  EXPECT_FALSE(plan.done());
  EXPECT_EQ(plan.wanted_values(1), Range(8, 56));
  plan.FeedValue(1, ByteCount{20}, 0);
  EXPECT_EQ(plan.wanted_values(1), Range(28, 36));
  plan.FeedValue(1, ByteCount{1}, 1);
  plan.FeedValue(1, ByteCount{1000}, 0);
  ASSERT_TRUE(plan.done());
  Descriptors dirty;
  plan.AppendDescriptors(1, dirty);
  EXPECT_EQ(dirty, (Descriptors{{14, 0}, {8, 1}, {32, 0}}));
}

// A dirty byte makes its unit dirty, whatever the sizes of bitmap bits and units (P3).
TEST(StatusReplyPropertyTest, ADirtyByteIsNeverCalledClean) {
  RandomSource random;
  const MergeOperator contexts[] = {MergeOperator::kAny};
  for (int round = 0; round < 1000; ++round) {
    const uint64_t granule = random.PowerOfTwo(1, 64);
    const uint64_t bit = random.PowerOfTwo(1, 64);
    const uint64_t size = granule * random.Between(1, 20);
    std::vector<bool> dirty(size);
    for (uint64_t at = 0; at < size; ++at) dirty[at] = at % bit ? dirty[at - 1] : random.OneIn(5);
    const ByteRange range = random.RangeWithin(size);
    StatusPlan plan({.range = range}, Whole(size, granule, 1), contexts);
    while (!plan.done()) {
      const uint64_t at = plan.wanted_values(0).offset.value;
      plan.FeedValue(0, ByteCount{1}, dirty[at] ? 1 : 0);
    }
    Descriptors got;
    plan.AppendDescriptors(0, got);
    uint64_t at = range.offset.value;
    for (const StatusDescriptor& descriptor : got) {
      const auto first = dirty.begin() + RoundDown(at, granule);
      const auto last = dirty.begin() + at + descriptor.length;
      const bool any = std::find(first, last, true) != last;
      ASSERT_EQ(descriptor.status, any ? 1u : 0u);
      at += descriptor.length;
    }
    ASSERT_EQ(at, std::min(size, RoundUp(range.end().value, granule)));
  }
}

struct RandomDisk {
  explicit RandomDisk(RandomSource& random) {
    granule = random.PowerOfTwo(1, 256);
    layers = static_cast<uint32_t>(random.Between(1, 4));
    content = random.Between(1, 3000);
    size = RoundUp(content, granule);
    for (uint64_t at = 0; at < content;) {
      const uint64_t length = std::min(content - at, random.Between(1, 100));
      const ExtentKind kind = static_cast<ExtentKind>(random.Below(4));
      const uint32_t layer = kind == kN ? 0 : static_cast<uint32_t>(random.Between(1, layers));
      AppendExtent(atoms, Atom(at, length, kind, layer));
      at += length;
    }
    for (const Extent& atom : atoms) bytes.insert(bytes.end(), atom.range.length.value, atom);
  }
  StatusOptions options() const {
    StatusOptions result = Whole(size, granule, layers);
    result.content_size = ByteCount{content};
    return result;
  }
  uint64_t granule, content, size;
  uint32_t layers;
  ExtentList atoms;
  ExtentList bytes;  // for each byte of the content, its atom
};

// S-12, S-13, S-18: the shape of one context's descriptors.
void ExpectShape(const Descriptors& got, const StatusRequest& request, const RandomDisk& disk) {
  ASSERT_FALSE(got.empty());
  uint64_t at = request.range.offset.value;
  for (std::size_t i = 0; i < got.size(); ++i) {
    ASSERT_GT(got[i].length, 0u);
    ASSERT_LT(at, request.range.end().value) << "the lengths before sum to less than the request";
    at += got[i].length;
    if (!request.one || i + 1 < got.size()) {
      ASSERT_TRUE(IsMultiple(at, disk.granule));
    }
  }
  ASSERT_LE(at, disk.size);
  if (request.one) {
    ASSERT_EQ(got.size(), 1u);
    ASSERT_LE(at, request.range.end().value);
  } else {
    ASSERT_GE(at, request.range.end().value);
  }
}

// P2 and P4, byte by byte.
void ExpectTruth(const std::vector<Descriptors>& got, const RandomDisk& disk, uint64_t offset) {
  for (std::size_t context = 0; context < got.size(); ++context) {
    uint64_t at = offset;
    for (const StatusDescriptor& descriptor : got[context]) {
      const uint64_t end = std::min(at + descriptor.length, disk.content);
      for (uint64_t i = at; i < end; ++i) {
        const Extent& atom = disk.bytes[i];
        const uint64_t depth = atom.kind == kN ? disk.layers + 1 : atom.layer;
        const uint64_t shown = descriptor.status == 0 ? disk.layers + 1 : descriptor.status;
        if (context == 0 && (descriptor.status & block::kStatusZero) != 0) {
          ASSERT_TRUE(ReadsZero(atom.kind));
        }
        ASSERT_TRUE(context != 0 || descriptor.status != block::kStatusHole);
        ASSERT_TRUE(context != 1 || shown <= depth);
        ASSERT_TRUE(context != 2 || shown >= depth);
      }
      at += descriptor.length;
    }
  }
}

TEST(StatusReplyPropertyTest, RepliesKeepTheirShapeAndTellTheTruth) {
  RandomSource random;
  for (int round = 0; round < 4000; ++round) {
    const RandomDisk disk(random);
    StatusRequest request{.range = random.RangeWithin(disk.size), .one = random.OneIn(3)};
    if (random.OneIn(2)) {
      request.range = AlignOutward(request.range, ByteCount{disk.granule}, ByteCount{disk.size});
    }
    const auto got = Ask(disk.atoms, request, disk.options(), random.Between(1, 5));
    for (const Descriptors& descriptors : got) {
      ASSERT_NO_FATAL_FAILURE(ExpectShape(descriptors, request, disk));
    }
    ASSERT_NO_FATAL_FAILURE(ExpectTruth(got, disk, request.range.offset.value));
  }
}

// The status of each byte of the request, as far as the descriptors go.
std::vector<uint64_t> Flatten(const Descriptors& descriptors, uint64_t length) {
  std::vector<uint64_t> values;
  for (const StatusDescriptor& descriptor : descriptors) {
    values.insert(values.end(), descriptor.length, descriptor.status);
  }
  values.resize(std::min<std::size_t>(values.size(), length));
  return values;
}

TEST(StatusReplyPropertyTest, SplitQueriesAnswerWhatOneLargeQueryAnswers) {
  RandomSource random;
  for (int round = 0; round < 1000; ++round) {
    const RandomDisk disk(random);
    const auto whole = Ask(disk.atoms, {.range = Range(0, disk.size)}, disk.options());
    std::vector<std::vector<uint64_t>> pieces(std::size(kAll));
    for (uint64_t at = 0; at < disk.size;) {
      const uint64_t length = std::min(disk.size - at, random.Between(1, 400));
      const auto part = Ask(disk.atoms, {.range = Range(at, length)}, disk.options());
      for (std::size_t i = 0; i < part.size(); ++i) {
        const std::vector<uint64_t> values = Flatten(part[i], length);
        pieces[i].insert(pieces[i].end(), values.begin(), values.end());
      }
      at += length;
    }
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      ASSERT_EQ(pieces[i], Flatten(whole[i], disk.size)) << "context " << i;
    }
  }
}

// A walk of single descriptors, each from where the last one ended, reaches the end on units.
TEST(StatusReplyPropertyTest, TheStrictWalkReachesTheEnd) {
  RandomSource random;
  for (int round = 0; round < 500; ++round) {
    const RandomDisk disk(random);
    for (std::size_t context = 0; context < std::size(kAll); ++context) {
      uint64_t at = 0;
      while (at < disk.size) {
        const StatusRequest request{.range = Range(at, disk.size - at), .one = true};
        const auto got = Ask(disk.atoms, request, disk.options());
        ASSERT_EQ(got[context].size(), 1u);
        at += got[context][0].length;
        ASSERT_TRUE(IsMultiple(at, disk.granule));
      }
      ASSERT_EQ(at, disk.size);
    }
  }
}

// P10: what lies behind the end of an image never shows in its last unit.
TEST(StatusReplyPropertyTest, TheTailUnitIsStableWhenItsPaddingBecomesZeros) {
  RandomSource random;
  for (int round = 0; round < 1000; ++round) {
    const RandomDisk disk(random);
    if (disk.content == disk.size) continue;
    const StatusRequest tail{.range = Range(disk.size - disk.granule, disk.granule)};
    const uint64_t before = Ask(disk.atoms, tail, disk.options())[0].back().status;
    // Grown by zeros in a file, and cut off again.
    ExtentList grown = disk.atoms;
    AppendExtent(grown, Atom(disk.content, disk.size - disk.content, kZ, 1));
    const StatusOptions options = Whole(disk.size, disk.granule, disk.layers);
    EXPECT_EQ(Ask(grown, tail, options)[0].back().status, before);
    const ExtentList cut = block::Clip(grown, Range(0, disk.content));
    EXPECT_EQ(Ask(cut, tail, disk.options()), Ask(disk.atoms, tail, disk.options()));
  }
}

}  // namespace
}  // namespace gabion::nbd
