#include "engine/formats/qcow2/header.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "engine/base/align.h"
#include "engine/base/bytes.h"
#include "engine/formats/qcow2/geometry.h"
#include "tests/engine/formats/qcow2/bytes_of_image.h"
#include "tests/support/random_source.h"

namespace gabion::qcow2 {
namespace {

using testing::AddBackingFile;
using testing::AddExtension;
using ::testing::HasSubstr;
using testing::ImageFile;
using testing::ImageForVerdicts;
using testing::Parse;

constexpr ByteCount kLargeFile{uint64_t{1} << 50};

std::string Message(const absl::Status& status) { return std::string(status.message()); }

TEST(HeaderTest, AFileTooShortForAHeaderIsNone) {
  const ImageFile file = ImageForVerdicts();
  for (std::size_t length = 0; length < 24; ++length) {
    EXPECT_EQ(HeaderBytesWanted(Bytes(file).first(length)).status().code(),
              absl::StatusCode::kFailedPrecondition);
  }
  EXPECT_EQ(HeaderBytesWanted(Bytes(file).first(24)).value(), 65536u);
}

TEST(HeaderTest, AFileThatEndsWithinItsHeaderIsRefused) {
  const ImageFile file = ImageForVerdicts();
  for (std::size_t length = 24; length < 112; ++length) {
    const ImageFile cut(file.begin(), file.begin() + static_cast<std::ptrdiff_t>(length));
    EXPECT_EQ(Parse(cut, Access::kRead).status().code(), absl::StatusCode::kFailedPrecondition)
        << length;
  }
}

TEST(HeaderTest, UnknownFeaturesAreCalledByTheNamesInTheFile) {
  ImageFile file = ImageForVerdicts();
  Header header = Parse(file, Access::kRead)->header;
  std::string entry(48, '\0');
  entry[1] = 20;
  entry.replace(2, 11, "time travel");
  std::ranges::copy(AsBytes(entry), std::back_inserter(header.feature_names));
  entry[1] = 21;
  entry.replace(2, 46, std::string(45, 'x') + "\xff");  // as long as a name can be, and not UTF-8
  std::ranges::copy(AsBytes(entry), std::back_inserter(header.feature_names));
  header.incompatible |= uint64_t{7} << 20;
  std::ranges::copy(SerializeHeader(header).value(), file.begin());

  const absl::Status status = Parse(file, Access::kRead).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(Message(status), HasSubstr("'time travel' (bit 20)"));
  EXPECT_THAT(Message(status), HasSubstr("x\\xff' (bit 21), bit 22"));
}

TEST(HeaderTest, AHeaderOfVersion2HasNoFieldsOfVersion3) {
  ImageFile file = ImageForVerdicts();
  Header header = Parse(file, Access::kRead)->header;
  header.version = 2;
  header.header_length = kHeaderLengthV2;
  header.autoclear = 0;
  header.bitmaps.reset();
  header.feature_names.clear();
  header.backing_format = "raw";
  header.backing_file = "base.img";
  const auto bytes = SerializeHeader(header);
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  // The extension begins where version 3 has its features: they are not read.
  EXPECT_EQ(LoadBe32(bytes->data() + kHeaderLengthV2), kExtensionBackingFormat);
  std::ranges::copy(*bytes, file.begin());
  const auto parsed = Parse(file, Access::kReadWrite);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_TRUE(parsed->header == header);

  header.compatible = kCompatibleLazyRefcounts;
  EXPECT_EQ(SerializeHeader(header).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(HeaderTest, TheExtensionsOfAnOldImageEndAtTheNameBehindItsHeader) {
  ImageFile file = ImageForVerdicts();
  std::fill(file.begin() + kHeaderLengthV2, file.begin() + 65536, std::byte{0});
  testing::Put32(file, kVersionField, 2);
  AddBackingFile(file, kHeaderLengthV2, "/a/name/that/would/be/an/extension/of/no/end");
  const auto parsed = Parse(file, Access::kReadWrite);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->header.backing_file, "/a/name/that/would/be/an/extension/of/no/end");
  EXPECT_TRUE(parsed->header.unknown_extensions.empty());
}

TEST(HeaderTest, WhatGabionDoesNotKnowIsWrittenAsItWasRead) {
  ImageFile file = ImageForVerdicts();
  testing::Put32(file, kHeaderLengthField, 128);  // 16 bytes of a later version
  std::fill(file.begin() + 112, file.begin() + 65536, std::byte{0});
  for (int i = 105; i < 127; ++i) file[static_cast<std::size_t>(i)] = static_cast<std::byte>(i);
  testing::Put64(file, kCompatibleField, 0xdead0001);
  AddExtension(file, 0x01020304, "seventeen bytes !");
  AddExtension(file, 0xffffffff, "");
  AddExtension(file, kExtensionBackingFormat, "qcow2");
  AddBackingFile(file, 4096, "base.qcow2");

  const auto parsed = Parse(file, Access::kReadWrite);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  const auto bytes = SerializeHeader(parsed->header);
  ASSERT_TRUE(bytes.ok());
  ASSERT_LT(bytes->size(), 4096u);
  // Only the name has moved to the end of the extensions.
  const uint64_t name = LoadBe64(bytes->data() + kBackingOffsetField);
  testing::Put64(file, kBackingOffsetField, name);
  EXPECT_EQ(AsText(*bytes).substr(name, 10), "base.qcow2");
  EXPECT_EQ(AsText(*bytes).substr(0, name), AsText(file).substr(0, name));
}

TEST(HeaderTest, ASnapshotTableThatTheFileDoesNotHoldIsEmptyForReading) {
  ImageFile file = ImageForVerdicts();
  testing::Put64(file, kSnapshotsOffsetField, uint64_t{1} << 40);
  const auto parsed = Parse(file, Access::kRead);
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(parsed->header.snapshot_count, 0u);
  EXPECT_EQ(parsed->header.snapshots_offset, 0u);
}

TEST(HeaderTest, AnL1TableMayEndWhereTheFileEnds) {
  ImageFile file = ImageForVerdicts();
  const uint64_t l1 = RoundUp(file.size(), 65536);
  testing::Put64(file, kL1OffsetField, l1);
  file.resize(l1 + 8);
  EXPECT_TRUE(Parse(file, Access::kReadWrite).ok());
  file.resize(l1 + 7);
  EXPECT_FALSE(Parse(file, Access::kReadWrite).ok());
}

TEST(HeaderTest, ANameThatDoesNotFitIntoTheClusterIsRefused) {
  Header header;
  header.cluster_bits = 9;
  header.backing_file = std::string(512 - 112 - 8, 'n');
  EXPECT_TRUE(SerializeHeader(header).ok());
  *header.backing_file += 'n';
  EXPECT_EQ(SerializeHeader(header).status().code(), absl::StatusCode::kInvalidArgument);
  header.cluster_bits = 16;
  EXPECT_TRUE(SerializeHeader(header).ok());
  header.backing_file = std::string(1024, 'n');
  EXPECT_EQ(SerializeHeader(header).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(HeaderTest, AFieldThatTheHeaderIsTooShortForIsRefused) {
  Header header;
  header.header_length = kMinHeaderLengthV3;
  EXPECT_TRUE(SerializeHeader(header).ok());
  header.compression = Compression::kZstd;
  EXPECT_EQ(SerializeHeader(header).status().code(), absl::StatusCode::kInvalidArgument);
  header.header_length = kHeaderLengthV3;
  EXPECT_TRUE(SerializeHeader(header).ok());
  header.tail.resize(8);
  EXPECT_EQ(SerializeHeader(header).status().code(), absl::StatusCode::kInvalidArgument);
}

std::vector<std::byte> RandomBytes(test::RandomSource& random, std::size_t most) {
  std::vector<std::byte> bytes(random.Below(most + 1));
  random.FillNonZero(bytes);
  return bytes;
}

std::string RandomText(test::RandomSource& random, std::size_t most) {
  std::vector<std::byte> bytes = RandomBytes(random, most);
  if (bytes.empty()) bytes.push_back(std::byte{'x'});
  return std::string(AsText(bytes));
}

void RandomExtensions(test::RandomSource& random, Header& header) {
  if (random.OneIn(2)) header.backing_file = RandomText(random, 300);
  if (random.OneIn(2)) header.backing_format = RandomText(random, 15);
  if (random.OneIn(2)) header.feature_names = RandomBytes(random, 200);
  if (random.OneIn(2)) header.data_file = RandomText(random, 100);
  for (uint64_t i = random.Below(4); i > 0; --i) {
    header.unknown_extensions.push_back(
        {static_cast<uint32_t>(0x1000 + i), RandomBytes(random, 50)});
  }
}

Header RandomHeader(test::RandomSource& random) {
  Header header;
  header.cluster_bits = static_cast<uint32_t>(random.Between(12, kMaxClusterBits));
  const uint64_t cluster = header.cluster_size();
  header.size = random.Below(uint64_t{1} << 33);
  header.l1_size = static_cast<uint32_t>(random.Between(1 << 14, 1 << 20));
  header.l1_offset = cluster * random.Between(uint64_t{1} << 20, uint64_t{1} << 24);
  header.refcount_table_clusters = static_cast<uint32_t>(random.Between(1, 4));
  header.refcount_table_offset = cluster * random.Between(1, 1000);
  header.snapshot_count = static_cast<uint32_t>(random.Below(100));
  header.snapshots_offset = cluster * random.Between(2000, 3000);
  RandomExtensions(random, header);
  if (random.OneIn(4)) {
    header.version = 2;
    header.header_length = kHeaderLengthV2;
    return header;
  }
  header.refcount_order = static_cast<uint32_t>(random.Below(7));
  header.header_length = static_cast<uint32_t>(104 + 8 * random.Below(8));
  header.compatible = random.Next();
  header.autoclear = random.Next() & ~kAutoclearRawDataFile;
  if (header.data_file && random.OneIn(2)) header.incompatible |= kIncompatibleDataFile;
  if (header.cluster_bits >= 14 && random.OneIn(2)) header.incompatible |= kIncompatibleExtendedL2;
  if (header.header_length == kMinHeaderLengthV3) return header;
  header.tail = RandomBytes(random, header.header_length - 105);
  if (random.OneIn(2)) {
    header.compression = Compression::kZstd;
    header.incompatible |= kIncompatibleCompression;
  }
  if (random.OneIn(2)) {
    header.bitmaps = BitmapsExtension{static_cast<uint32_t>(random.Between(1, 9)),
                                      8 * random.Between(36, 100), cluster * 4000};
  }
  return header;
}

// l1_size must suffice; the disk of a random header may need more than it has.
bool IsLargeEnough(const Header& header) {
  return Geometry(header).L1Entries(header.size) <= header.l1_size;
}

TEST(HeaderTest, ParsingWhatWasSerializedGivesTheSameHeader) {
  test::RandomSource random;
  int tried = 0;
  while (tried < 2000) {
    const Header header = RandomHeader(random);
    if (!IsLargeEnough(header)) continue;
    ++tried;
    const auto bytes = SerializeHeader(header);
    ASSERT_TRUE(bytes.ok()) << bytes.status();
    ASSERT_EQ(bytes->size() % 8, 0u);
    const auto parsed = ParseHeader(*bytes, kLargeFile, Access::kReadWrite);
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    ASSERT_TRUE(parsed->header == header);
  }
}

TEST(HeaderTest, WhateverIsChangedIsRefusedOrSurvivesARoundTrip) {
  test::RandomSource random;
  int parsed_count = 0;
  for (int i = 0; i < 20000; ++i) {
    std::vector<std::byte> bytes = SerializeHeader(RandomHeader(random)).value();
    for (uint64_t changes = random.Below(4); changes > 0; --changes) {
      bytes[random.Below(bytes.size())] = static_cast<std::byte>(random.Below(256));
    }
    if (random.OneIn(10)) bytes.resize(random.Below(bytes.size()));
    bytes.shrink_to_fit();
    const Access access = random.OneIn(2) ? Access::kRead : Access::kReadWrite;
    const auto parsed = ParseHeader(bytes, kLargeFile, access);
    if (!parsed.ok()) {
      ASSERT_TRUE(absl::IsFailedPrecondition(parsed.status()) ||
                  absl::IsUnimplemented(parsed.status()));
      continue;
    }
    ++parsed_count;
    const auto again = SerializeHeader(parsed->header);
    ASSERT_TRUE(again.ok()) << again.status();
    const auto reparsed = ParseHeader(*again, kLargeFile, access);
    ASSERT_TRUE(reparsed.ok()) << reparsed.status();
    ASSERT_TRUE(reparsed->header == parsed->header);
  }
  EXPECT_GT(parsed_count, 1000);
}

}  // namespace
}  // namespace gabion::qcow2
