#include "engine/secret_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "engine/base/bytes.h"
#include "tests/support_io/temp_dir.h"

namespace gabion::engine {
namespace {

class SecretFileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    absl::StatusOr<io::Directory> opened = io::Directory::Open(directory_.path());
    ASSERT_TRUE(opened.ok());
    secrets_ = std::make_unique<io::Directory>(*std::move(opened));
  }
  void Write(const std::string& name, std::string_view content) {
    std::ofstream(directory_.File(name), std::ios::binary) << content;
  }
  absl::Status Refused(std::string_view name) { return ReadSecretFile(*secrets_, name).status(); }

  test::TempDir directory_;
  std::unique_ptr<io::Directory> secrets_;
};

TEST_F(SecretFileTest, AllBytesAreTheSecret) {
  for (const std::string& content :
       {std::string("sesame\n"), std::string(1, '\0'), std::string(kMiB, 'x')}) {
    Write("key", content);
    const absl::StatusOr<Secret> secret = ReadSecretFile(*secrets_, "key");
    ASSERT_TRUE(secret.ok()) << secret.status();
    EXPECT_TRUE(AsText(secret->bytes()) == content);
  }
}

TEST_F(SecretFileTest, NothingElseIsASecret) {
  Write("empty", "");
  Write("long", std::string(kMiB + 1, 'x'));
  std::filesystem::create_directory(directory_.File("below"));
  Write("below/key", "x");
  ASSERT_EQ(mkfifo(directory_.File("pipe").c_str(), 0600), 0);
  for (const char* const name : {"empty", "long", "below", "below/key", "pipe", "", ".", "..",
                                 "../key", "/etc/passwd", "./empty"}) {
    EXPECT_EQ(Refused(name).code(), absl::StatusCode::kInvalidArgument) << name;
  }
  EXPECT_EQ(Refused("missing").code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Refused(std::string_view("a\0b", 3)).code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(SecretFileTest, LinksLeadNowhere) {
  Write("key", "x");
  std::filesystem::create_symlink("key", directory_.File("link"));
  std::filesystem::create_symlink("/etc/passwd", directory_.File("outside"));
  for (const char* const name : {"link", "outside"}) {
    EXPECT_EQ(Refused(name).code(), absl::StatusCode::kPermissionDenied) << name;
    EXPECT_EQ(std::string(Refused(name).message()).find('/'), std::string::npos);
  }
}

}  // namespace
}  // namespace gabion::engine
