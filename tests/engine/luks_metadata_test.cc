#include "engine/luks_metadata.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "engine/base/bytes.h"

namespace gabion::engine {
namespace {

constexpr ByteCount kDisk{64 * kMiB};

// As cryptsetup makes them, without what nobody reads.
constexpr char kLuks2[] = R"({
  "keyslots": {"0": {"type": "luks2", "key_size": 64,
    "af": {"type": "luks1", "stripes": 4000, "hash": "sha256"},
    "area": {"type": "raw", "offset": "32768", "size": "258048", "encryption": "aes-xts-plain64",
      "key_size": 64},
    "kdf": {"type": "argon2id", "time": 4, "memory": 1048576, "cpus": 4, "salt": "AAAA"}}},
  "tokens": {},
  "segments": {"0": {"type": "crypt", "offset": "16777216", "size": "dynamic", "iv_tweak": "0",
    "encryption": "aes-xts-plain64", "sector_size": 4096}},
  "digests": {"0": {"type": "pbkdf2", "keyslots": ["0"], "segments": ["0"], "hash": "sha256",
    "iterations": 1000, "salt": "AAAA", "digest": "AAAA"}},
  "config": {"json_size": "12288", "keyslots_size": "16744448"}
})";

absl::StatusOr<LuksMetadata> Decode(const std::string& json) {
  absl::StatusOr<LuksMetadata> metadata = DecodeLuks2(json);
  if (metadata.ok()) metadata->key_bytes = 64;
  return metadata;
}

absl::StatusOr<filters::LuksVolume> Check(const std::string& json, LuksBounds bounds = {}) {
  const absl::StatusOr<LuksMetadata> metadata = Decode(json);
  if (!metadata.ok()) return metadata.status();
  return CheckLuksMetadata(*metadata, kDisk, bounds);
}

std::string With(const std::string& from, const std::string& to) {
  std::string json(kLuks2);
  EXPECT_GT(absl::StrReplaceAll({{from, to}}, &json), 0) << from;
  return json;
}

// Four slots' worth of header.
std::vector<std::byte> Luks1() {
  std::vector<std::byte> bytes(kLuks1HeaderBytes);
  const auto put = [&](std::size_t at, std::string_view text) {
    std::copy(text.begin(), text.end(), reinterpret_cast<char*>(bytes.data() + at));
  };
  put(0, std::string_view("LUKS\xba\xbe\0\1", 8));
  put(8, "aes");
  put(40, "xts-plain64");
  put(72, "sha256");
  put(112, std::string(20, 'd') + std::string(32, 's'));
  StoreBe32(bytes.data() + 104, 4096);
  StoreBe32(bytes.data() + 108, 64);
  StoreBe32(bytes.data() + 164, 5000);
  for (std::size_t slot = 0; slot < 8; ++slot) {
    std::byte* const at = bytes.data() + 208 + 48 * slot;
    StoreBe32(at, slot == 2 ? 0x00ac71f3 : 0x0000dead);
    StoreBe32(at + 4, 70'000);
    StoreBe32(at + 40, static_cast<uint32_t>(8 + 504 * slot));
    StoreBe32(at + 44, 4000);
  }
  return bytes;
}

TEST(LuksMetadataTest, TheFieldsOfTheFirstVersionAreFound) {
  const absl::StatusOr<LuksMetadata> metadata = DecodeLuks1(Luks1());
  ASSERT_TRUE(metadata.ok()) << metadata.status();
  EXPECT_EQ(metadata->version, 1);
  EXPECT_EQ(metadata->data_offset, ByteOffset{2 * kMiB});
  EXPECT_EQ(metadata->encryption, "aes-xts-plain64");
  EXPECT_EQ(metadata->key_bytes, 64u);
  EXPECT_EQ(metadata->digest.iterations, 5000u);
  EXPECT_EQ(metadata->digest.hash, "sha256");
  EXPECT_EQ(metadata->digest.value, std::string(20, 'd'));
  EXPECT_EQ(metadata->digest.salt, std::string(32, 's'));
  EXPECT_EQ(metadata->sector_bytes, 512u);
  ASSERT_EQ(metadata->slots.size(), 1u);
  EXPECT_EQ(metadata->slots[0].area, Range(uint64_t{8 + 1008} * 512, uint64_t{64} * 4000));
  EXPECT_EQ(metadata->slots[0].iterations, 70'000u);
  EXPECT_TRUE(CheckLuksMetadata(*metadata, kDisk, {}).ok());
}

TEST(LuksMetadataTest, WhatIsNotTheFirstVersionIsNotDecoded) {
  for (const std::size_t at : {0, 4, 5, 6, 7}) {
    std::vector<std::byte> bytes = Luks1();
    bytes[at] ^= std::byte{3};
    EXPECT_EQ(DecodeLuks1(bytes).status().code(), absl::StatusCode::kInvalidArgument) << at;
  }
}

TEST(LuksMetadataTest, TheFirstVersionsNumbersAreNotBelieved) {
  struct Case {
    std::size_t at;
    uint32_t value;
    absl::StatusCode code;
  };
  constexpr std::size_t kSlot = 208 + 2 * 48;
  constexpr Case kCases[] = {
      {104, 0, absl::StatusCode::kUnimplemented},           // detached
      {104, 1000, absl::StatusCode::kUnimplemented},        // in front of the slot's end
      {104, 131072, absl::StatusCode::kDataLoss},           // the disk's end
      {104, 0xffffffff, absl::StatusCode::kDataLoss},       // far behind it
      {108, 0, absl::StatusCode::kUnimplemented},           // a key of no bytes
      {108, 0xffffffff, absl::StatusCode::kUnimplemented},  // or of too many
      {164, 0xffffffff, absl::StatusCode::kResourceExhausted},
      {kSlot, 0, absl::StatusCode::kFailedPrecondition},  // no slot at all
      {kSlot + 4, 0xffffffff, absl::StatusCode::kResourceExhausted},
      {kSlot + 40, 0xffffffff, absl::StatusCode::kUnimplemented},
      {kSlot + 44, 0xffffffff, absl::StatusCode::kDataLoss},
      {8, 0x41414141, absl::StatusCode::kUnimplemented},  // the name of the cipher
  };
  for (const Case& one : kCases) {
    std::vector<std::byte> bytes = Luks1();
    StoreBe32(bytes.data() + one.at, one.value);
    const absl::StatusOr<LuksMetadata> metadata = DecodeLuks1(bytes);
    const absl::Status status =
        metadata.ok() ? CheckLuksMetadata(*metadata, kDisk, {}).status() : metadata.status();
    EXPECT_EQ(status.code(), one.code) << one.at << ": " << status;
  }
}

TEST(LuksMetadataTest, TheFieldsOfTheSecondVersionAreFound) {
  const absl::StatusOr<LuksMetadata> metadata = Decode(kLuks2);
  ASSERT_TRUE(metadata.ok()) << metadata.status();
  EXPECT_EQ(metadata->header_end, ByteOffset{16 * kMiB});
  EXPECT_EQ(metadata->digest.iterations, 1000u);
  EXPECT_EQ(metadata->digest.hash, "sha256");
  EXPECT_EQ(metadata->digest.value, std::string(3, '\0'));
  EXPECT_EQ(metadata->digest.salt, std::string(3, '\0'));
  ASSERT_EQ(metadata->slots.size(), 1u);
  EXPECT_EQ(metadata->slots[0].area, Range(32768, 258048));
  EXPECT_EQ(metadata->slots[0].memory, ByteCount{kGiB});
  EXPECT_EQ(metadata->slots[0].iterations, 4u);
  const absl::StatusOr<filters::LuksVolume> volume = CheckLuksMetadata(*metadata, kDisk, {});
  ASSERT_TRUE(volume.ok()) << volume.status();
  EXPECT_EQ(volume->data_offset, ByteOffset{16 * kMiB});
  EXPECT_EQ(volume->sector_bytes, 4096u);
  EXPECT_EQ(volume->cipher, filters::LuksCipher::kAesXtsPlain64);
  EXPECT_FALSE(volume->size.has_value());
}

TEST(LuksMetadataTest, WhatIsNotSupportedIsNamed) {
  struct Case {
    std::string from;
    std::string to;
    std::string name;
  };
  const Case cases[] = {
      {R"("encryption": "aes-xts-plain64", "sector_size)",
       R"("encryption": "serpent-xts-plain64", "sector_size)", "'serpent-xts-plain64'"},
      {R"("encryption": "aes-xts-plain64", "sector_size)",
       "\"encryption\": \"a\\u0007\\\"b\", \"sector_size", R"('a\x07\"b')"},
      {R"("encryption": "aes-xts-plain64",
      "key_size)",
       R"("encryption": "twofish-xts-plain64",
      "key_size)",
       "'twofish-xts-plain64'"},
      {R"("sector_size": 4096)", R"j("sector_size": 4096, "integrity": {"type": "hmac(sha256)"})j",
       "integrity protection by 'hmac(sha256)'"},
      {R"("sector_size": 4096)", R"("sector_size": 4096, "flags": ["in-reencryption"])",
       "reencryption"},
      {R"("type": "crypt")", R"("type": "linear")", "'linear'"},
      {R"("type": "luks2")", R"("type": "reencrypt")", "reencryption"},
      {R"("type": "argon2id")", R"("type": "scrypt")", "'scrypt'"},
      {R"("json_size": "12288")",
       R"("json_size": "12288", "requirements": {"mandatory": ["something-new"]})", "requirement"},
      {R"("offset": "16777216")", R"("offset": "0")", "detached"},
  };
  for (const Case& one : cases) {
    const absl::Status status = Check(With(one.from, one.to)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << one.to << ": " << status;
    EXPECT_NE(std::string(status.message()).find(one.name), std::string::npos) << status;
  }
}

// As while cryptsetup encrypts a disk in place: data that is not encrypted yet has neither vectors
// nor a digest.
TEST(LuksMetadataTest, WhatIsNotSupportedNeedsNoMembersOfWhatIs) {
  const std::string encrypting = absl::StrReplaceAll(
      kLuks2, {{R"("segments": {)",
                R"("segments": {"1": {"type": "linear", "offset": "50331648", "size": "16777216"},)"
                R"("2": {"type": "linear", "offset": "0", "size": "33554432", )"
                R"("flags": ["backup-previous"]},)"},
               {R"("json_size")", R"("requirements": {"mandatory": ["x"]}, "json_size")"}});
  struct Case {
    std::string json;
    std::string name;
  };
  const Case cases[] = {
      {encrypting, "reencryption"},
      {With(R"("iv_tweak": "0",)", R"("type": "linear",)"), "'linear'"},
      {With(R"("type": "raw")", R"("type": "datashift")"), "key slot"},
      {With(R"({"type": "luks1", "stripes": 4000,)", R"({"type": "other",)"), "key slot"},
  };
  for (const Case& one : cases) {
    const absl::Status status = Check(one.json).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << one.json << ": " << status;
    EXPECT_NE(std::string(status.message()).find(one.name), std::string::npos) << status;
  }
}

TEST(LuksMetadataTest, TheSecondVersionsNumbersAreNotBelieved) {
  struct Case {
    std::string from;
    std::string to;
    absl::StatusCode code;
  };
  constexpr auto kDamaged = absl::StatusCode::kDataLoss;
  constexpr auto kTooMuch = absl::StatusCode::kResourceExhausted;
  const Case cases[] = {
      {R"("offset": "16777216")", R"("offset": "18446744073709551104")", kDamaged},
      {R"("offset": "16777216")", R"("offset": "99999999999999999999")", kDamaged},
      {R"("offset": "16777216")", R"("offset": "-1")", kDamaged},
      {R"("offset": "16777216")", R"("offset": "16777217")", kDamaged},
      {R"("offset": "16777216")", R"("offset": "67108864")", kDamaged},
      {R"("size": "dynamic")", R"("size": "18446744073709547520")", kDamaged},
      {R"("size": "dynamic")", R"("size": "0")", kDamaged},
      {R"("size": "dynamic")", R"("size": "512")", kDamaged},
      {R"("size": "dynamic")", R"("size": null)", kDamaged},
      {R"("sector_size": 4096)", R"("sector_size": 0)", kDamaged},
      {R"("sector_size": 4096)", R"("sector_size": 8192)", kDamaged},
      {R"("sector_size": 4096)", R"("sector_size": 1000)", kDamaged},
      {R"("sector_size": 4096)", R"("sector_size": -512)", kDamaged},
      {R"("sector_size": 4096)", R"("sector_size": [])", kDamaged},
      {R"("iv_tweak": "0")", R"("iv_tweak": "7")", kDamaged},
      {R"("offset": "32768")", R"("offset": "18446744073709551615")", kDamaged},
      {R"("offset": "32768")", R"("offset": "16777216")", kDamaged},
      {R"("stripes": 4000)", R"("stripes": 4000000000)", kDamaged},
      {R"("keyslots_size": "16744448")", R"("keyslots_size": "18446744073709551615")", kDamaged},
      {R"("memory": 1048576)", R"("memory": 2097153)", kTooMuch},
      {R"("memory": 1048576)", R"("memory": 18446744073709551615)", kDamaged},
      {R"("memory": 1048576)", R"("memory": "18014398509481983")", kTooMuch},
      {R"("memory": 1048576)", R"("memory": 0)", kDamaged},
      {R"("time": 4)", R"("time": 4294967295)", kTooMuch},
      {R"("time": 4)", R"("time": "18446744073709551615")", kTooMuch},
      {R"("cpus": 4)", R"("cpus": 65)", kTooMuch},
      {R"("iterations": 1000)", R"("iterations": 4294967295)", kTooMuch},
      {R"("segments": {)", R"("segments": [], "other": {)", kDamaged},
      {R"("segments": ["0"])", R"("segments": ["1"])", kDamaged},
      {R"("segments": ["0"])", R"("segments": [])", kDamaged},
      {R"("digest": "AAAA")", R"("digest": "")", kDamaged},
      {R"("digest": "AAAA")", R"("digest": "A*AA")", kDamaged},
  };
  for (const Case& one : cases) {
    EXPECT_EQ(Check(With(one.from, one.to)).status().code(), one.code)
        << one.to << ": " << Check(With(one.from, one.to)).status();
  }
  for (const char* const json : {"", "{}", "[]", "null", "{\"keyslots\":", "\"x\""}) {
    EXPECT_EQ(Check(json).status().code(), kDamaged) << json;
  }
}

TEST(LuksMetadataTest, TheBoundsAreThoseThatAreGiven) {
  const uint64_t work = 4 * 1048576 + 1000;
  EXPECT_TRUE(Check(kLuks2, {.memory = ByteCount{kGiB}, .work = work}).ok());
  EXPECT_EQ(Check(kLuks2, {.work = work - 1}).status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Check(kLuks2, {.memory = ByteCount{kGiB - 1}}).status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Check(kLuks2, {.header = ByteCount{200'000}}).status().code(),
            absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace gabion::engine
