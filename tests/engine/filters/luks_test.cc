#include "engine/filters/luks.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/escaping.h"
#include "engine/base/align.h"
#include "engine/block/aligned_node.h"
#include "engine/runtime/task_set.h"
#include "engine/runtime/worker_pool.h"
#include "tests/support/memory_node.h"
#include "tests/support/random_source.h"
#include "tests/support_io/finish.h"

namespace gabion::filters {
namespace {

using block::Extent;
using block::ExtentKind;
using block::ExtentList;
using test::MemoryNode;
using test::MemoryNodeOptions;
using test::NodeCall;
using test::RandomSource;

Secret KeyOf(Bytes bytes) {
  Secret key(bytes.size());
  std::copy(bytes.begin(), bytes.end(), key.bytes().begin());
  return key;
}

Secret RandomKey(RandomSource& random, std::size_t size) {
  Secret key(size);
  random.FillNonZero(key.bytes());
  return key;
}

// A key for tests that do not care.
Secret SomeKey() {
  Secret key(64);
  for (std::size_t i = 0; i < key.size(); ++i) key.bytes()[i] = std::byte{static_cast<uint8_t>(i)};
  return key;
}

std::vector<std::byte> Pattern(std::size_t size, uint8_t value) {
  return std::vector<std::byte>(size, std::byte{value});
}

// A volume in memory, with its filter.
class Stand {
 public:
  Stand(const MemoryNodeOptions& options, LuksVolume volume, bool allow_discards = false)
      : pool_("worker", 2), workers_(pool_, reactor_), child_(options) {
    absl::StatusOr<std::unique_ptr<Filter>> made =
        NewLuks(child_, {reactor_.ready(), reactor_.clock(), NullLogger(), "test"}, "secret",
                std::move(volume), allow_discards, workers_);
    EXPECT_TRUE(made.ok()) << made.status();
    filter_ = *std::move(made);
  }

  runtime::Reactor& reactor() { return reactor_; }
  runtime::Workers& workers() { return workers_; }
  MemoryNode& child() { return child_; }
  Filter& filter() { return *filter_; }

  absl::Status Write(uint64_t offset, Bytes bytes, block::WriteOptions options = {}) {
    return test::Finish(reactor_, filter_->Write(Range(offset, bytes.size()), bytes, options));
  }
  std::vector<std::byte> Read(uint64_t offset, std::size_t size) {
    std::vector<std::byte> bytes(size);
    const absl::Status status =
        test::Finish(reactor_, filter_->Read(Range(offset, size), MutableBytes(bytes)));
    EXPECT_TRUE(status.ok()) << status;
    return bytes;
  }
  absl::StatusOr<ExtentList> Status(ByteRange range) {
    return test::Finish(reactor_, filter_->BlockStatus(range, 100));
  }

 private:
  runtime::Reactor reactor_{{}};
  runtime::WorkerPool pool_;
  runtime::Workers workers_;
  MemoryNode child_;
  std::unique_ptr<Filter> filter_;
};

LuksVolume SomeVolume(uint64_t data_offset = 4096, uint32_t sector_bytes = 512) {
  LuksVolume volume;
  volume.data_offset.value = data_offset;
  volume.sector_bytes = sector_bytes;
  volume.key = SomeKey();
  return volume;
}

// IEEE 1619-2018, annex B: the units of 512 bytes.
struct XtsVector {
  std::string_view key1;
  std::string_view key2;
  uint64_t sector;
  std::string_view begin;  // of the ciphertext of 00 01 .. ff 00 01 .. ff
};

constexpr std::string_view kE128 = "27182818284590452353602874713526";
constexpr std::string_view kPi128 = "31415926535897932384626433832795";
constexpr std::string_view kE256 =
    "2718281828459045235360287471352662497757247093699959574966967627";
constexpr std::string_view kPi256 =
    "3141592653589793238462643383279502884197169399375105820974944592";

constexpr XtsVector kXtsVectors[] = {
    {kE128, kPi128, 0,
     "27a7479befa1d476489f308cd4cfa6e2a96e4bbe3208ff25287dd3819616e89c"
     "c78cf7f5e543445f8333d8fa7f56000005279fa5d8b5e4ad40e736ddb4d35412"},
    {kE256, kPi256, 0xff,
     "1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b"
     "5d31e276f8fe4a8d66b317f9ac683f44680a86ac35adfc3345befecb4bb188fd"},
    {kE256, kPi256, 0xffff, "77a31251618a15e6b92d1d66dffe7b50b50bad552305ba0217a610688eff7e11"},
    {kE256, kPi256, 0xffffff, "e387aaa58ba483afa7e8eb469778317ecf4cf573aa9d4eac23f2cdf914e4e200"},
    {kE256, kPi256, 0xffffffff, "bf53d2dade78e822a4d949a9bc6766b01b06a8ef70d26748c6a7fc36d80ae4c5"},
    {kE256, kPi256, 0xffffffffff,
     "64497e5a831e4a932c09be3e5393376daa599548b816031d224bbf50a818ed23"},
};

Secret HexKey(const XtsVector& vector) {
  const std::string hex = std::string(vector.key1) + std::string(vector.key2);
  const std::string bytes = absl::HexStringToBytes(hex);
  return KeyOf(std::as_bytes(std::span<const char>(bytes)));
}

std::vector<std::byte> CountingBytes() {
  std::vector<std::byte> bytes(512);
  for (std::size_t i = 0; i < 512; ++i) bytes[i] = std::byte{static_cast<uint8_t>(i)};
  return bytes;
}

TEST(LuksTest, SectorsAreThoseOfTheXtsStandard) {
  for (const XtsVector& vector : kXtsVectors) {
    LuksVolume volume = SomeVolume(512);
    volume.key = HexKey(vector);
    volume.iv_offset = vector.sector;
    Stand stand({.size = 1024}, std::move(volume));
    EXPECT_TRUE(stand.Write(0, CountingBytes()).ok());
    const std::string expected = absl::HexStringToBytes(std::string(vector.begin));
    EXPECT_EQ(std::memcmp(stand.child().content().data() + 512, expected.data(), expected.size()),
              0)
        << "sector " << vector.sector;
    EXPECT_EQ(stand.Read(0, 512), CountingBytes());
  }
}

TEST(LuksTest, TheVectorOfALargeSectorCountsUnitsOf512Bytes) {
  Stand second({.size = 16384}, SomeVolume(4096, 4096));
  EXPECT_TRUE(second.Write(4096, Pattern(4096, 7)).ok());
  LuksVolume later = SomeVolume(4096, 4096);
  later.iv_offset = 8;
  Stand first({.size = 16384}, std::move(later));
  EXPECT_TRUE(first.Write(0, Pattern(4096, 7)).ok());
  EXPECT_TRUE(std::equal(second.child().content().begin() + 8192,
                         second.child().content().begin() + 12288,
                         first.child().content().begin() + 4096));
}

TEST(LuksTest, IsADiskOfWholeSectorsBehindTheHeader) {
  Stand stand({.size = 65536 + 4096 * 3 + 700, .preferred = 65536, .fast_zero = true},
              SomeVolume(65536, 4096));
  const block::Limits& limits = stand.filter().limits();
  EXPECT_EQ(limits.size, ByteCount{4096 * 3});
  EXPECT_EQ(limits.alignment, ByteCount{4096});
  EXPECT_EQ(limits.alignment_from, "secret");
  EXPECT_EQ(limits.preferred, ByteCount{65536});
  EXPECT_EQ(limits.preferred_from, "memory");
  EXPECT_FALSE(limits.fast_zero);
}

TEST(LuksTest, GrowsWithTheDiskBelowUnlessItsSizeIsFixed) {
  LuksVolume fixed = SomeVolume();
  fixed.size = ByteCount{8192};
  Stand open({.size = 16384}, SomeVolume());
  Stand closed({.size = 16384}, std::move(fixed));
  EXPECT_EQ(closed.filter().limits().size, ByteCount{8192});
  for (Stand* const stand : {&open, &closed}) {
    EXPECT_EQ(test::Finish(stand->reactor(), stand->filter().Resize(ByteCount{99999})).code(),
              absl::StatusCode::kUnimplemented);
    EXPECT_TRUE(test::Finish(stand->reactor(), stand->child().Resize(ByteCount{20001})).ok());
    stand->filter().Refresh();
  }
  EXPECT_EQ(open.filter().limits().size, ByteCount{15872});
  EXPECT_EQ(closed.filter().limits().size, ByteCount{8192});
}

TEST(LuksTest, KeysThatDoNotFitAreRefused) {
  Stand stand({.size = 8192}, SomeVolume());
  const auto refuse = [&](LuksCipher cipher, Secret key) {
    LuksVolume volume = SomeVolume();
    volume.cipher = cipher;
    volume.key = std::move(key);
    const auto made = NewLuks(
        stand.child(), {stand.reactor().ready(), stand.reactor().clock(), NullLogger(), "test"},
        "secret", std::move(volume), false, stand.workers());
    return made.status().code();
  };
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  EXPECT_EQ(refuse(LuksCipher::kAesXtsPlain64, Secret(48)), kInvalid);
  EXPECT_EQ(refuse(LuksCipher::kAesXtsPlain64, Secret(64)), kInvalid);  // both halves are zeros
  EXPECT_EQ(refuse(LuksCipher::kAesXtsPlain64, Secret()), kInvalid);
  EXPECT_EQ(refuse(LuksCipher::kAesCbcPlain64, Secret(64)), kInvalid);
  EXPECT_EQ(refuse(LuksCipher::kAesCbcEssivSha256, Secret(8)), kInvalid);
}

TEST(LuksTest, EverythingIsDataOfTheLayerThatHasItBelow) {
  Stand stand({.size = 65536, .layers = 3}, SomeVolume(4096));
  stand.child().SetStatus(Range(4096, 100), ExtentKind::kZero, 1);
  stand.child().SetStatus(Range(4196, 100), ExtentKind::kZeroAllocated, 1);
  stand.child().Fill(Range(4296, 100), std::byte{1}, 2);
  stand.child().SetStatus(Range(4396, 100), ExtentKind::kUnallocated, 0);
  stand.child().SetStatus(Range(4496, 100), ExtentKind::kZero, 3);
  const absl::StatusOr<ExtentList> list = stand.Status(Range(50, 400));
  ASSERT_TRUE(list.ok());
  EXPECT_EQ(*list, (ExtentList{{.range = Range(50, 150), .layer = 1},
                               {.range = Range(200, 100), .layer = 2},
                               {.range = Range(300, 150), .layer = 3}}));
}

TEST(LuksTest, ZerosAreWrittenEncrypted) {
  Stand stand({.size = 4 << 20, .fast_zero = true}, SomeVolume());
  stand.child().Fill(Range(0, 4 << 20), std::byte{9});
  EXPECT_EQ(
      test::Finish(stand.reactor(), stand.filter().Zero(Range(512, 1024), {.fast_only = true}))
          .code(),
      absl::StatusCode::kUnimplemented);
  EXPECT_TRUE(stand.child().calls().empty());
  const ByteRange range = Range(1024, 3 << 20);
  EXPECT_TRUE(test::Finish(stand.reactor(), stand.filter().Zero(range, {.durable = true})).ok());
  EXPECT_EQ(stand.child().CountCalls(NodeCall::kZero), 0u);
  uint64_t written = 0;
  for (const test::CallRecord& record : stand.child().calls()) {
    EXPECT_EQ(record.call, NodeCall::kWrite);
    EXPECT_TRUE(record.durable);
    EXPECT_LE(record.range.length, ByteCount{kMiB});
    written += record.range.length.value;
  }
  EXPECT_EQ(written, range.length.value);
  EXPECT_EQ(stand.Read(1024, 3 << 20), Pattern(3 << 20, 0));
  EXPECT_NE(stand.child().content()[8192], std::byte{0});
  EXPECT_EQ(stand.child().content()[4096 + 1023], std::byte{9});
}

TEST(LuksTest, DiscardsReachTheDiskBelowOnlyWhereAllowed) {
  for (const bool allowed : {false, true}) {
    Stand stand({.size = 16384}, SomeVolume(), allowed);
    EXPECT_TRUE(stand.Write(0, Pattern(2048, 5)).ok());
    stand.child().ClearCalls();
    EXPECT_TRUE(test::Finish(stand.reactor(), stand.filter().Discard(Range(512, 1024))).ok());
    ASSERT_EQ(stand.child().calls().size(), allowed ? 1u : 0u);
    if (allowed) {
      EXPECT_EQ(stand.child().calls()[0].call, NodeCall::kDiscard);
      EXPECT_EQ(stand.child().calls()[0].range, Range(4608, 1024));
    } else {
      EXPECT_EQ(stand.Read(0, 2048), Pattern(2048, 5));
    }
  }
}

TEST(LuksTest, FlushesAndPrefetchesAreThoseOfTheDiskBelow) {
  Stand stand({.size = 16384}, SomeVolume());
  EXPECT_TRUE(test::Finish(stand.reactor(), stand.filter().Flush()).ok());
  EXPECT_TRUE(test::Finish(stand.reactor(), stand.filter().Cache(Range(1024, 512))).ok());
  ASSERT_EQ(stand.child().calls().size(), 2u);
  EXPECT_EQ(stand.child().calls()[0].call, NodeCall::kFlush);
  EXPECT_EQ(stand.child().calls()[1].call, NodeCall::kCache);
  EXPECT_EQ(stand.child().calls()[1].range, Range(5120, 512));
}

TEST(LuksTest, ErrorsBelowPassAndEndTheRequest) {
  Stand stand({.size = 8 << 20}, SomeVolume());
  stand.child().SetFault([](NodeCall call, ByteRange range) {
    const bool hit = call != NodeCall::kFlush && Overlaps(range, Range(2 << 20, 512));
    return hit ? absl::DataLossError("bad sector") : absl::OkStatus();
  });
  std::vector<std::byte> bytes = Pattern(6 << 20, 3);
  const ByteRange range = Range(0, 6 << 20);
  EXPECT_EQ(stand.Write(0, bytes), absl::DataLossError("bad sector"));
  EXPECT_LT(stand.child().calls().size(), 16u);  // of 24 pieces
  EXPECT_EQ(test::Finish(stand.reactor(), stand.filter().Zero(range, {})),
            absl::DataLossError("bad sector"));
  EXPECT_EQ(test::Finish(stand.reactor(), stand.filter().Read(range, bytes)),
            absl::DataLossError("bad sector"));
  EXPECT_EQ(test::Finish(stand.reactor(), stand.filter().BlockStatus(range, 1)).status(),
            absl::DataLossError("bad sector"));
  EXPECT_EQ(stand.child().in_flight(), 0);
}

struct CipherChoice {
  LuksCipher cipher;
  std::size_t key_bytes;
};
constexpr CipherChoice kCiphers[] = {
    {LuksCipher::kAesXtsPlain64, 32},     {LuksCipher::kAesXtsPlain64, 64},
    {LuksCipher::kAesCbcPlain64, 16},     {LuksCipher::kAesCbcPlain64, 24},
    {LuksCipher::kAesCbcEssivSha256, 32}, {LuksCipher::kAesCbcEssivSha256, 16},
};

LuksVolume RandomVolume(RandomSource& random) {
  const CipherChoice& choice = random.Pick(kCiphers);
  LuksVolume volume;
  volume.cipher = choice.cipher;
  volume.key = RandomKey(random, choice.key_bytes);
  volume.sector_bytes = static_cast<uint32_t>(random.PowerOfTwo(512, 4096));
  volume.data_offset.value = random.Between(1, 8) * 4096;
  volume.iv_offset = random.OneIn(2) ? 0 : random.Next();
  return volume;
}

TEST(LuksPropertyTest, EqualSectorsAreNeverEqualBelow) {
  RandomSource random;
  for (int round = 0; round < 20; ++round) {
    LuksVolume volume = RandomVolume(random);
    const uint64_t offset = volume.data_offset.value;
    const uint64_t sector = volume.sector_bytes;
    Stand stand({.size = offset + sector * 64}, std::move(volume));
    EXPECT_TRUE(stand.Write(0, Pattern(sector * 64, 0x55)).ok());
    const auto begin = stand.child().content().begin() + static_cast<std::ptrdiff_t>(offset);
    std::vector<std::vector<std::byte>> sectors;
    for (std::ptrdiff_t i = 0; i < 64; ++i) {
      const auto at = begin + i * static_cast<std::ptrdiff_t>(sector);
      sectors.emplace_back(at, at + static_cast<std::ptrdiff_t>(sector));
    }
    std::sort(sectors.begin(), sectors.end());
    EXPECT_EQ(std::adjacent_find(sectors.begin(), sectors.end()), sectors.end());
  }
}

// Runs waves of concurrent requests on disjoint ranges, which yet share sectors, against a model
// that is a plain array of bytes.
class LuksModel {
 public:
  LuksModel(RandomSource& random, LuksVolume volume, uint64_t size, uint32_t memory_alignment)
      : random_(random),
        stand_({.size = volume.data_offset.value + size, .memory_alignment = memory_alignment},
               std::move(volume)),
        node_(stand_.filter(), stand_.reactor().ready()),
        model_(size) {
    stand_.child().SetDeferred(stand_.reactor().ready(), random_);
    stand_.reactor().ready().SetChooser(&RandomSource::Choose, &random_);
    // What was there before decrypts to nothing in particular.
    EXPECT_TRUE(test::Finish(stand_.reactor(), node_.Zero(Range(0, size), {})).ok());
  }

  void RunWave(std::size_t most) {
    std::vector<ByteRange> taken;
    std::vector<Task<void>> tasks;
    for (uint64_t n = random_.Between(2, 10); n > 0; --n) {
      ByteRange range = random_.RangeWithin(model_.size());
      range.length.value = std::min<uint64_t>(range.length.value, random_.Between(1, most));
      if (std::any_of(taken.begin(), taken.end(),
                      [&](const ByteRange& other) { return Overlaps(range, other); })) {
        continue;
      }
      taken.push_back(range);
      tasks.push_back(Start(range));
      if (random_.OneIn(3)) stand_.reactor().ready().RunOnce();
    }
    for (Task<void>& task : tasks) test::Finish(stand_.reactor(), std::move(task));
    std::vector<std::byte> all(model_.size());
    EXPECT_TRUE(test::Finish(stand_.reactor(), node_.Read(Range(0, all.size()), all)).ok());
    ASSERT_EQ(all, model_);
  }

 private:
  Task<void> Start(ByteRange range) {
    const auto first = model_.begin() + static_cast<std::ptrdiff_t>(range.offset.value);
    const auto last = first + static_cast<std::ptrdiff_t>(range.length.value);
    switch (random_.Below(4)) {
      case 0:
        return Read(range, std::vector<std::byte>(first, last));
      case 1:
        std::fill(first, last, std::byte{0});
        return Zero(range);
      default: {
        std::vector<std::byte> bytes(range.length.value);
        random_.FillNonZero(bytes);
        std::copy(bytes.begin(), bytes.end(), first);
        return Write(range, std::move(bytes));
      }
    }
  }
  Task<void> Read(ByteRange range, std::vector<std::byte> expected) {
    std::vector<std::byte> bytes(range.length.value);
    const absl::Status status = co_await node_.Read(range, MutableBytes(bytes));
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_EQ(bytes, expected);
  }
  Task<void> Write(ByteRange range, std::vector<std::byte> bytes) {
    const absl::Status status = co_await node_.Write(range, bytes, {});
    EXPECT_TRUE(status.ok()) << status;
  }
  Task<void> Zero(ByteRange range) {
    const absl::Status status = co_await node_.Zero(range, {});
    EXPECT_TRUE(status.ok()) << status;
  }

  RandomSource& random_;
  Stand stand_;
  block::AlignedNode node_;
  std::vector<std::byte> model_;
};

TEST(LuksPropertyTest, SmallRequestsAtOnceLoseNoByte) {
  RandomSource random;
  for (int round = 0; round < 40; ++round) {
    LuksVolume volume = RandomVolume(random);
    const uint64_t size = volume.sector_bytes * random.Between(1, 12);
    const uint32_t memory_alignment = random.OneIn(2) ? 1 : 512;
    LuksModel model(random, std::move(volume), size, memory_alignment);
    for (int wave = 0; wave < 20; ++wave) ASSERT_NO_FATAL_FAILURE(model.RunWave(3000));
  }
}

TEST(LuksPropertyTest, LargeRequestsAtOnceLoseNoByte) {
  RandomSource random;
  for (int round = 0; round < 6; ++round) {
    LuksVolume volume = RandomVolume(random);
    LuksModel model(random, std::move(volume), 3 * kMiB, 512);
    for (int wave = 0; wave < 4; ++wave) ASSERT_NO_FATAL_FAILURE(model.RunWave(2 * kMiB));
  }
}

Task<void> ReadInto(block::Node& node, ByteRange range, MutableBytes bytes) {
  const absl::Status status = co_await node.Read(range, bytes);
  EXPECT_TRUE(status.ok());
}

TEST(LuksPropertyTest, AReadBesideAWriteSeesOldOrNewBytes) {
  RandomSource random;
  for (int round = 0; round < 300; ++round) {
    LuksVolume volume = RandomVolume(random);
    volume.sector_bytes = 512;
    volume.data_offset.value = 4096;
    Stand stand({.size = 4096 + 1024}, std::move(volume));
    block::AlignedNode node(stand.filter(), stand.reactor().ready());
    EXPECT_TRUE(stand.Write(0, Pattern(1024, 1)).ok());
    stand.child().SetDeferred(stand.reactor().ready(), random);
    const std::vector<std::byte> change = Pattern(100, 2);
    std::vector<std::byte> before(1024);
    std::vector<std::byte> after(1024);
    Task<void> first = ReadInto(node, Range(0, 1024), before);
    Task<absl::Status> write = node.Write(Range(200, 100), change, {});
    for (uint64_t turns = random.Below(20); turns > 0; --turns) stand.reactor().ready().RunOnce();
    Task<void> second = ReadInto(node, Range(0, 1024), after);
    test::Finish(stand.reactor(), std::move(first));
    test::Finish(stand.reactor(), std::move(second));
    EXPECT_TRUE(test::Finish(stand.reactor(), std::move(write)).ok());
    for (uint64_t at = 0; at < 1024; ++at) {
      const bool changed = at >= 200 && at < 300;
      for (const std::byte byte : {before[at], after[at]}) {
        ASSERT_TRUE(byte == std::byte{1} || (changed && byte == std::byte{2})) << "byte " << at;
      }
    }
  }
}

}  // namespace
}  // namespace gabion::filters
