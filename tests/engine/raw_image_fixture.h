// A pool with the file of one raw image.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <utility>

#include "engine/image_files.h"
#include "tests/support_io/temp_dir.h"

namespace gabion::engine {

// The image images/a, of 4096 bytes.
class RawImageTest : public ::testing::Test {
 protected:
  void SetUp() override {
    absl::StatusOr<io::Directory> pool = io::Directory::Open(directory_.path());
    ASSERT_TRUE(pool.ok()) << pool.status();
    pool_ = std::make_unique<io::Directory>(*std::move(pool));
    spec_.name = "images/a";
    spec_.uid = "uid-a";
    spec_.pool = "pools/p";
    spec_.file_name = "a.raw";
    ASSERT_TRUE(CreateImageFile(*pool_, spec_, ByteCount{4096}).ok());
  }

  test::TempDir directory_;
  std::unique_ptr<io::Directory> pool_;
  ImageSpec spec_;
};

}  // namespace gabion::engine
