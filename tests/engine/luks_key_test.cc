// Volumes that qemu-img and cryptsetup made are read, and what Gabion wrote into them is read by
// these. cryptsetup works on files here: it needs neither privileges nor a device mapper.
#include "engine/luks_key.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/engine/luks_fixture.h"

namespace gabion::engine {
namespace {

constexpr char kQuick2[] = "--type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 ";
constexpr char kQuick1[] = "--type luks1 --pbkdf-force-iterations 1000 ";
constexpr char kQemuSecret[] = "--object secret,id=s,file=key ";

class LuksKeyTest : public LuksFilesTest {
 protected:
  // What qemu sees in the volume is `content`, also after Gabion has changed both.
  void ExchangeWithQemu(std::string content) {
    {
      Volume volume(*this, "volume");
      ASSERT_TRUE(volume.valid());
      ASSERT_EQ(volume.node().limits().size.value, content.size());
      EXPECT_TRUE(volume.Read(0, content.size()) == content);
      Scribble(volume, content);
    }
    ASSERT_NO_FATAL_FAILURE(
        Run(absl::StrCat("qemu-img convert ", kQemuSecret, "--image-opts ",
                         "driver=luks,key-secret=s,file.filename=volume -O raw seen")));
    EXPECT_TRUE(ReadFile("seen") == content);
  }
};

TEST_F(LuksKeyTest, VolumesOfQemuAreReadAndWritten) {
  if (!Has("qemu-img")) GTEST_SKIP() << "qemu-img is not here";
  const std::string content = RandomText(3 * kMiB + 512 * random_.Below(5));
  WriteFile("plain", content);
  // Where the kernel counts CPU time coarsely, qemu now and then cannot see how fast the machine
  // is, and gives up.
  ASSERT_NO_FATAL_FAILURE(
      Run(absl::StrCat("for i in $(seq 20); do qemu-img convert ", kQemuSecret, "-f raw -O luks ",
                       "-o key-secret=s,iter-time=10 plain volume 2>error && exit; cat error; ",
                       "grep -q 'accurate CPU usage' error || exit 1; done; exit 1")));
  ASSERT_NO_FATAL_FAILURE(ExchangeWithQemu(content));
}

TEST_F(LuksKeyTest, EveryCipherIsTheSameForQemu) {
  if (!Has("cryptsetup") || !Has("qemu-img")) GTEST_SKIP() << "cryptsetup or qemu-img is not here";
  for (const char* const cipher :
       {"aes-xts-plain64 --key-size 512", "aes-xts-plain64 --key-size 256",
        "aes-cbc-plain64 --key-size 256", "aes-cbc-plain64 --key-size 128",
        "aes-cbc-essiv:sha256 --key-size 256", "aes-cbc-essiv:sha256 --key-size 128"}) {
    SCOPED_TRACE(cipher);
    ASSERT_NO_FATAL_FAILURE(Format("volume", 6 * kMiB, absl::StrCat(kQuick1, "--cipher ", cipher)));
    const auto opened = Unlock("volume");
    ASSERT_TRUE(opened.ok()) << opened.status();
    const std::string content = RandomText(6 * kMiB - opened->data_offset.value);
    WriteFile("plain", content);
    ASSERT_NO_FATAL_FAILURE(
        Run(absl::StrCat("qemu-img convert -n ", kQemuSecret, "-f raw plain --target-image-opts ",
                         "driver=luks,key-secret=s,file.filename=volume")));
    ASSERT_NO_FATAL_FAILURE(ExchangeWithQemu(content));
  }
}

TEST_F(LuksKeyTest, QemuIoSeesWhatWasWrittenToAVolumeOfCryptsetup) {
  if (!Has("cryptsetup") || !Has("qemu-io")) GTEST_SKIP() << "cryptsetup or qemu-io is not here";
  ASSERT_NO_FATAL_FAILURE(Format("volume", 8 * kMiB, kQuick1));
  {
    Volume volume(*this, "volume");
    ASSERT_TRUE(volume.valid());
    volume.Write(0, std::string(volume.node().limits().size.value, '\x11'));
    volume.Write(100'000, std::string(70'000, '\x22'));
  }
  ASSERT_NO_FATAL_FAILURE(Run(absl::StrCat(
      "qemu-io ", kQemuSecret, "--image-opts driver=luks,key-secret=s,file.filename=volume ",
      "-c 'read -P 0x11 0 100000' -c 'read -P 0x22 100000 70000' ",
      "-c 'read -P 0x11 170000 1000000' -c 'write -P 0x33 4096 512'")));
  Volume volume(*this, "volume");
  ASSERT_TRUE(volume.valid());
  EXPECT_EQ(volume.Read(4095, 514), "\x11" + std::string(512, '\x33') + "\x11");
}

// cryptsetup en- and decrypts in place, at the cost of the data at the end.
TEST_F(LuksKeyTest, VolumesThatCryptsetupEncryptedAreReadAndWritten) {
  if (!Has("cryptsetup")) GTEST_SKIP() << "cryptsetup is not here";
  for (const char* const cipher :
       {"--sector-size 4096", "--sector-size 512 --key-size 256",
        "--sector-size 512 --cipher aes-cbc-essiv:sha256 --key-size 192"}) {
    SCOPED_TRACE(cipher);
    std::string content = RandomText(36 * kMiB);
    WriteFile("volume", content);
    ASSERT_NO_FATAL_FAILURE(
        Run(absl::StrCat("cryptsetup reencrypt --encrypt -q --key-file key ",
                         "--reduce-device-size 32M ", kQuick2, cipher, " volume")));
    {
      Volume volume(*this, "volume");
      ASSERT_TRUE(volume.valid());
      ASSERT_EQ(volume.node().limits().size, ByteCount{20 * kMiB});
      EXPECT_TRUE(volume.Read(0, 4 * kMiB) == content.substr(0, 4 * kMiB));
      content = volume.Read(0, 20 * kMiB);
      Scribble(volume, content);
    }
    ASSERT_NO_FATAL_FAILURE(
        Run("rm -f header && cryptsetup reencrypt --decrypt -q --force-offline-reencrypt "
            "--key-file key --header header volume"));
    EXPECT_TRUE(ReadFile("volume").substr(0, content.size()) == content);
  }
}

TEST_F(LuksKeyTest, ExtentsNameTheirPlaceInTheFile) {
  if (!Has("cryptsetup")) GTEST_SKIP() << "cryptsetup is not here";
  ASSERT_NO_FATAL_FAILURE(Format("volume", 18 * kMiB, kQuick2));
  Volume volume(*this, "volume");
  ASSERT_TRUE(volume.valid());
  volume.Write(0, std::string(kMiB, 'x'));
  const absl::StatusOr<block::ExtentList> list =
      test::Finish(reactor_, volume.node().BlockStatus(Range(1000, kMiB), 10));
  ASSERT_TRUE(list.ok());
  ASSERT_FALSE(list->empty());
  EXPECT_EQ(list->front().kind, block::ExtentKind::kData);
  EXPECT_EQ(list->front().host_offset, 16 * kMiB + 1000);
  EXPECT_EQ(list->back().kind, block::ExtentKind::kData);  // also where the file has a hole
}

TEST_F(LuksKeyTest, Argon2WithinItsBoundsIsDone) {
  if (!Has("cryptsetup")) GTEST_SKIP() << "cryptsetup is not here";
  for (const char* const kdf : {"argon2id", "argon2i"}) {
    ASSERT_NO_FATAL_FAILURE(
        Format("volume", 18 * kMiB,
               absl::StrCat("--type luks2 --pbkdf-memory 16384 --pbkdf-parallel 2 ",
                            "--pbkdf-force-iterations 4 --pbkdf ", kdf)));
    EXPECT_TRUE(Unlock("volume").ok());
    EXPECT_EQ(Unlock("volume", kPassphrase, {.memory = ByteCount{16 * kMiB - 1}}).status().code(),
              absl::StatusCode::kResourceExhausted);
    // Four passes over 16,384 KiB, and what it takes to see whether the key is the right one.
    EXPECT_EQ(Unlock("volume", kPassphrase, {.work = 4 * 16384}).status().code(),
              absl::StatusCode::kResourceExhausted);
  }
}

TEST_F(LuksKeyTest, AnySlotOpensAndAWrongPassphraseDoesNot) {
  if (!Has("cryptsetup")) GTEST_SKIP() << "cryptsetup is not here";
  WriteFile("other", RandomText(70'000));  // longer than anybody types
  for (const char* const type : {kQuick1, kQuick2}) {
    ASSERT_NO_FATAL_FAILURE(Format("volume", 20 * kMiB, type));
    ASSERT_NO_FATAL_FAILURE(Run(absl::StrCat(
        "cryptsetup luksAddKey -q --key-file key --pbkdf pbkdf2 --pbkdf-force-iterations 1000 ",
        "volume other")));
    const auto first = Unlock("volume");
    const auto second = Unlock("volume", ReadFile("other"));
    ASSERT_TRUE(first.ok() && second.ok()) << first.status() << second.status();
    EXPECT_TRUE(std::equal(first->key.bytes().begin(), first->key.bytes().end(),
                           second->key.bytes().begin(), second->key.bytes().end()));
    for (const std::string& wrong :
         {std::string(kPassphrase) + "\n", std::string("x"), std::string(kPassphrase).substr(1)}) {
      EXPECT_EQ(Unlock("volume", wrong).status().code(), absl::StatusCode::kPermissionDenied);
    }
  }
}

TEST_F(LuksKeyTest, ADiskWithoutAHeaderIsNoVolume) {
  for (const uint64_t size : {uint64_t{1}, uint64_t{511}, uint64_t{4096}, 20 * kMiB}) {
    for (const std::string& content : {RandomText(size), std::string(size, '\0')}) {
      WriteFile("disk", content);
      EXPECT_EQ(Unlock("disk").status().code(), absl::StatusCode::kInvalidArgument) << size;
    }
  }
}

TEST_F(LuksKeyTest, WhatGabionDoesNotDoIsRefusedByName) {
  if (!Has("cryptsetup")) GTEST_SKIP() << "cryptsetup is not here";
  const auto refused = [&](std::string_view what) {
    const absl::Status status = Unlock("volume").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << status;
    EXPECT_NE(std::string(status.message()).find(what), std::string::npos) << status;
  };
  ASSERT_NO_FATAL_FAILURE(
      Format("volume", 20 * kMiB, absl::StrCat(kQuick1, "--cipher aes-xts-plain")));
  refused("'aes-xts-plain'");
  ASSERT_NO_FATAL_FAILURE(
      Format("volume", 20 * kMiB, absl::StrCat(kQuick2, "--cipher aes-cbc-plain --key-size 256")));
  refused("'aes-cbc-plain'");
  ASSERT_NO_FATAL_FAILURE(Format("volume", 36 * kMiB, kQuick2));
  ASSERT_NO_FATAL_FAILURE(
      Run(absl::StrCat("cryptsetup reencrypt --init-only -q --key-file key --pbkdf pbkdf2 ",
                       "--pbkdf-force-iterations 1000 volume")));
  refused("reencryption");
  WriteFile("volume", RandomText(36 * kMiB));
  ASSERT_NO_FATAL_FAILURE(
      Run(absl::StrCat("cryptsetup reencrypt --encrypt --init-only -q --key-file key ",
                       "--reduce-device-size 32M ", kQuick2, "volume")));
  refused("reencryption");
  for (const char* const type : {kQuick1, kQuick2}) {
    WriteFile("data", std::string(kMiB, 'x'));
    ASSERT_NO_FATAL_FAILURE(Run(absl::StrCat("rm volume; cryptsetup luksFormat -q --key-file key ",
                                             type, "--header volume data")));
    std::filesystem::resize_file(Path("volume"), 20 * kMiB);
    refused("detached");
  }
}

}  // namespace
}  // namespace gabion::engine
