// Hash images of veritysetup are read as it means them. It works on plain files here, and needs
// neither privileges nor a device mapper.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "engine/base/bytes.h"
#include "engine/base/text.h"
#include "tests/engine/filters/verify_tree_fixture.h"
#include "tests/support_io/temp_dir.h"

namespace gabion::filters {
namespace {

using test::HashImageOptions;
using test::RandomSource;

class VeritysetupTest : public testing::Test {
 protected:
  void SetUp() override {
    if (Run("--version").empty()) GTEST_SKIP() << "veritysetup is not installed";
  }

  // What it prints; nothing if it fails.
  static std::string Run(const std::string& arguments) {
    const std::string command =
        absl::StrCat("PATH=\"$PATH:/usr/sbin:/sbin\" LC_ALL=C veritysetup ", arguments, " 2>&1");
    FILE* const pipe = popen(command.c_str(), "r");
    if (pipe == nullptr) return "";
    std::string output;
    for (int next = fgetc(pipe); next != EOF; next = fgetc(pipe)) {
      output.push_back(static_cast<char>(next));
    }
    const int status = pclose(pipe);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? output : "";
  }

  void WriteFile(const std::string& path, Bytes bytes) {
    std::ofstream file(path, std::ios::binary | std::ios::trunc);
    const std::string_view text = AsText(bytes);
    file.write(text.data(), static_cast<std::streamsize>(text.size()));
  }
  std::vector<std::byte> ReadFile(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    const Bytes bytes = AsBytes(text);
    return {bytes.begin(), bytes.end()};
  }

  // Makes the hash image of `data`; its root digest.
  std::string Format(const HashImageOptions& options, Bytes data) {
    WriteFile(data_, data);
    std::remove(hashes_.c_str());
    const std::string salt = absl::BytesToHexString(AsAbsl(AsText(options.salt)));
    const std::string output = Run(absl::StrCat(
        "format --hash=", options.algorithm, " --format=", options.type,
        " --data-block-size=", options.data_block, " --hash-block-size=", options.hash_block,
        " --salt=", salt.empty() ? "-" : salt, " ", data_, " ", hashes_));
    constexpr std::string_view kRoot = "Root hash:";
    const std::size_t at = output.find(kRoot);
    if (at == std::string::npos) return "";
    const std::size_t begin = output.find_first_not_of(" \t", at + kRoot.size());
    const std::size_t end = output.find_first_of(" \r\n", begin);
    return absl::HexStringToBytes(output.substr(begin, end - begin));
  }

  test::TempDir directory_;
  const std::string data_ = directory_.File("data");
  const std::string hashes_ = directory_.File("hashes");
};

TEST_F(VeritysetupTest, ItsImagesAreThoseThatTestsMake) {
  RandomSource random;
  for (int round = 0; round < 40; ++round) {
    const HashImageOptions options = test::RandomHashImageOptions(random, 524288);
    const uint64_t most = std::max<uint64_t>(1, kMiB / options.data_block);
    const uint64_t blocks = random.Between(1, random.PowerOfTwo(1, most));
    const std::vector<std::byte> data = test::RandomBytes(random, blocks * options.data_block);
    const std::string root = Format(options, data);
    ASSERT_FALSE(root.empty());
    test::HashImage image = test::MakeHashImage(options, data);
    EXPECT_EQ(root, AsText(image.root));
    std::vector<std::byte> bytes = ReadFile(hashes_);
    ASSERT_GE(bytes.size(), 512u);
    std::copy_n(bytes.begin() + 16, 16, image.bytes.begin() + 16);  // the UUID
    if (blocks == 1) image.bytes.resize(512);
    bytes.resize(std::max(bytes.size(), image.bytes.size()));
    EXPECT_TRUE(test::HasAt(bytes, 0, image.bytes)) << round;
  }
}

TEST_F(VeritysetupTest, DisksAreReadByItsImagesAndDamageIsFound) {
  RandomSource random;
  for (int round = 0; round < 25; ++round) {
    const HashImageOptions options = test::RandomHashImageOptions(random, 65536);
    const uint64_t blocks = random.Between(1, random.PowerOfTwo(1, 2 * kMiB / options.data_block));
    const std::vector<std::byte> data = test::RandomBytes(random, blocks * options.data_block);
    const std::string root = Format(options, data);
    ASSERT_FALSE(root.empty());
    const Bytes digest = AsBytes(root);
    TreeStand stand({.bytes = ReadFile(hashes_), .root = {digest.begin(), digest.end()}}, data,
                    random.Below(5000));
    const auto filter = stand.Make();
    const ByteRange all = Range(0, data.size());
    ASSERT_EQ(filter->limits().size, all.length);
    EXPECT_TRUE(stand.Read(*filter, all).ok());
    EXPECT_EQ(stand.bytes, data);
    stand.child.content()[random.Below(data.size())] ^= std::byte{0x10};
    EXPECT_EQ(stand.Read(*filter, all).code(), absl::StatusCode::kDataLoss);
  }
}

TEST_F(VeritysetupTest, OtherAlgorithmsAreRefusedByName) {
  RandomSource random;
  const std::vector<std::byte> data = test::RandomBytes(random, 8192);
  for (const char* const algorithm : {"sha1", "sha384", "sha3-256"}) {
    if (Format({.algorithm = algorithm, .data_block = 4096, .hash_block = 4096}, data).empty()) {
      continue;  // its library does not know it either
    }
    const std::vector<std::byte> bytes = ReadFile(hashes_);
    const absl::Status status =
        verity::HashTree::Decode(Bytes(bytes).first(512), ByteCount{bytes.size()}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(status.message().find(absl::StrCat("'", algorithm, "'")), std::string::npos);
  }
}

TEST_F(VeritysetupTest, NamesInCapitalsAreTheSame) {
  RandomSource random;
  const std::vector<std::byte> data = test::RandomBytes(random, 8192);
  ASSERT_FALSE(
      Format({.algorithm = "SHA256", .data_block = 4096, .hash_block = 4096}, data).empty());
  const std::vector<std::byte> bytes = ReadFile(hashes_);
  EXPECT_TRUE(verity::HashTree::Decode(Bytes(bytes).first(512), ByteCount{bytes.size()}).ok());
}

}  // namespace
}  // namespace gabion::filters
