// Headers that are damaged, cut off or malicious: an error, or the volume that was there before.
#include <gtest/gtest.h>
#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <string>

#include "tests/engine/luks_fixture.h"

namespace gabion::engine {
namespace {

// A LUKS2 header is two copies of kCopy bytes, binary and JSON, each with its own checksum.
constexpr std::size_t kCopy = 16384;
constexpr std::size_t kJsonAt = 4096;
constexpr std::size_t kChecksumAt = 448;
constexpr std::size_t kChecksumBytes = 64;

class LuksDamageTest : public LuksFilesTest {
 protected:
  // Little work, so that a number that grew by accident is refused instead of tried.
  static constexpr LuksBounds kLittle{.memory = ByteCount{32 * kMiB}, .work = 100'000};

  void SetUp() override {
    LuksFilesTest::SetUp();
    if (!Has("cryptsetup")) GTEST_SKIP() << "cryptsetup is not here";
  }
  void MakeVolume(int version) {
    if (version == 1) {
      Format("volume", 3 * kMiB, "--type luks1 --pbkdf-force-iterations 1000");
    } else {
      Format("volume", 18 * kMiB, "--type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000");
    }
    if (HasFatalFailure()) return;
    header_ = ReadFile("volume");
    absl::StatusOr<filters::LuksVolume> volume = Unlock("volume", kPassphrase, kLittle);
    ASSERT_TRUE(volume.ok()) << volume.status();
    volume_ = *std::move(volume);
  }

  // Brings the checksums of both copies in line with what they are of.
  static void Seal(std::string& disk) {
    for (const std::size_t at : {std::size_t{0}, kCopy}) {
      std::fill_n(disk.begin() + static_cast<std::ptrdiff_t>(at + kChecksumAt), kChecksumBytes, 0);
      std::array<unsigned char, EVP_MAX_MD_SIZE> sum{};
      unsigned length = 0;
      ASSERT_EQ(EVP_Digest(disk.data() + at, kCopy, sum.data(), &length, EVP_sha256(), nullptr), 1);
      std::copy_n(sum.begin(), length,
                  disk.begin() + static_cast<std::ptrdiff_t>(at + kChecksumAt));
    }
  }
  // The volume with `from` in its JSON replaced by `to`, of the same length.
  std::string Edited(std::string_view from, std::string_view to) const {
    EXPECT_EQ(from.size(), to.size());
    std::string disk = header_;
    for (const std::size_t at : {kJsonAt, kCopy + kJsonAt}) {
      const std::size_t found = disk.find(from, at);
      EXPECT_LT(found, at + kCopy - kJsonAt) << from;
      if (found < disk.size()) disk.replace(found, to.size(), to);
    }
    Seal(disk);
    return disk;
  }
  absl::Status OpenEdited(std::string_view from, std::string_view to) {
    WriteFile("volume", Edited(from, to));
    return Unlock("volume", kPassphrase, kLittle).status();
  }
  // Opens what may be damaged; true if it opened, and then with the right key.
  bool Opens(std::string_view disk) {
    WriteFile("volume", disk);
    const absl::StatusOr<filters::LuksVolume> opened = Unlock("volume", kPassphrase, kLittle);
    if (!opened.ok()) return false;
    EXPECT_TRUE(std::equal(opened->key.bytes().begin(), opened->key.bytes().end(),
                           volume_.key.bytes().begin(), volume_.key.bytes().end()));
    return true;
  }
  void DamageSomeBytes(std::string& disk, std::size_t from, std::size_t to) {
    for (uint64_t n = random_.Between(1, 4); n > 0; --n) {
      const std::size_t at = random_.Between(from, to - 1);
      disk[at] = random_.OneIn(2) ? static_cast<char>(random_.Next())
                                  : static_cast<char>(disk[at] ^ (1 << random_.Below(8)));
    }
  }

  std::string header_;
  filters::LuksVolume volume_;
};

TEST_F(LuksDamageTest, HeadersOfTheFirstVersionDamagedAnywhereAreAnErrorOrTheVolume) {
  ASSERT_NO_FATAL_FAILURE(MakeVolume(1));
  int opened = 0;
  for (int round = 0; round < 150; ++round) {
    std::string disk = header_;
    DamageSomeBytes(disk, 0, round % 2 == 0 ? 592 : 250);
    opened += Opens(disk) ? 1 : 0;
  }
  EXPECT_GT(opened, 0);  // what nobody needs was hit, such as the UUID
  EXPECT_LT(opened, 150);
}

TEST_F(LuksDamageTest, HeadersOfTheSecondVersionDamagedAnywhereAreAnErrorOrTheVolume) {
  ASSERT_NO_FATAL_FAILURE(MakeVolume(2));
  for (int round = 0; round < 40; ++round) {
    std::string disk = header_;
    DamageSomeBytes(disk, 0, kCopy + 8192);
    Opens(disk);
  }
}

TEST_F(LuksDamageTest, JsonDamagedUnderARightChecksumIsAnErrorOrTheVolume) {
  ASSERT_NO_FATAL_FAILURE(MakeVolume(2));
  const std::size_t end = header_.find('\0', kJsonAt);
  int opened = 0;
  for (int round = 0; round < 120; ++round) {
    std::string disk = header_;
    std::string json = disk.substr(kJsonAt, end - kJsonAt);
    DamageSomeBytes(json, 0, json.size());
    disk.replace(kJsonAt, json.size(), json);
    disk.replace(kCopy + kJsonAt, json.size(), json);
    Seal(disk);
    opened += Opens(disk) ? 1 : 0;
  }
  EXPECT_LT(opened, 120);
}

TEST_F(LuksDamageTest, WhatIsCutOffDoesNotOpen) {
  for (const int version : {1, 2}) {
    ASSERT_NO_FATAL_FAILURE(MakeVolume(version));
    for (int round = 0; round < 20; ++round) {
      const uint64_t length =
          random_.OneIn(2) ? random_.Below(20'000) : random_.Below(volume_.data_offset.value + 1);
      EXPECT_FALSE(Opens(header_.substr(0, length))) << length;
    }
    EXPECT_FALSE(Opens(header_.substr(0, volume_.data_offset.value + volume_.sector_bytes - 1)));
    EXPECT_TRUE(Opens(header_.substr(0, volume_.data_offset.value + volume_.sector_bytes)));
  }
}

TEST_F(LuksDamageTest, TheSecondCopyOfAHeaderServesWhereTheFirstIsGone) {
  ASSERT_NO_FATAL_FAILURE(MakeVolume(2));
  std::string disk = header_;
  disk.replace(0, kCopy, kCopy, '\0');
  EXPECT_TRUE(Opens(disk));
  EXPECT_EQ(ReadFile("volume"), disk);  // the library repairs its copy, not the disk
  disk.replace(kCopy, kCopy, kCopy, '\0');
  EXPECT_FALSE(Opens(disk));
}

TEST_F(LuksDamageTest, ADamagedHeaderIsToldFromNone) {
  ASSERT_NO_FATAL_FAILURE(MakeVolume(2));
  std::string disk = header_;
  disk[kJsonAt] = 'x';
  disk[kCopy + kJsonAt] = 'x';
  WriteFile("volume", disk);
  const absl::Status status = Unlock("volume", kPassphrase, kLittle).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
  EXPECT_EQ(std::string(status.message()).find("/proc"), std::string::npos) << status;
}

TEST_F(LuksDamageTest, EditedHeadersAreWhatTheySay) {
  ASSERT_NO_FATAL_FAILURE(MakeVolume(2));
  EXPECT_TRUE(OpenEdited(R"("iv_tweak":"0")", R"("iv_tweak":"8")").ok());
  EXPECT_EQ(OpenEdited(R"("iv_tweak":"0")", R"("iv_tweak":"1")").code(),
            absl::StatusCode::kDataLoss);  // sectors have 4096 bytes here
  EXPECT_EQ(OpenEdited(R"("iterations":1000)", R"("iterations":9999)").code(),
            absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(OpenEdited(R"("size":"dynamic")", R"("size":"1048576")").code(), absl::StatusCode::kOk);
  WriteFile("volume", Edited(R"("size":"dynamic")", R"("size":"1048576")"));
  const auto fixed = Unlock("volume", kPassphrase, kLittle);
  ASSERT_TRUE(fixed.ok());
  EXPECT_EQ(fixed->size, ByteCount{kMiB});
  EXPECT_EQ(OpenEdited(R"("size":"dynamic")", R"("size":"9048576")").code(),
            absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace gabion::engine
