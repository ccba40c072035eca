// A pool in a directory of the test's own, for tests of the work on image files.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/image_spec.h"
#include "engine/io/directory.h"
#include "tests/support_io/temp_dir.h"

namespace gabion::engine {

class ImageFilesTest : public ::testing::Test {
 protected:
  void SetUp() override { OpenPool(); }

  // As after a restart: nothing is remembered.
  void OpenPool() {
    absl::StatusOr<io::Directory> pool = io::Directory::Open(directory_->path());
    ASSERT_TRUE(pool.ok()) << pool.status();
    pool_ = std::make_unique<io::Directory>(*std::move(pool));
  }
  void NewPool() {
    directory_ = std::make_unique<test::TempDir>();
    OpenPool();
  }

  static ImageSpec Spec(const std::string& id) {
    ImageSpec spec;
    spec.name = "images/" + id;
    spec.uid = "uid-" + id;
    spec.pool = "pools/default";
    spec.file_name = id + ".raw";
    return spec;
  }

  // Every file of the pool, sorted.
  std::vector<std::string> Names() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(directory_->path())) {
      names.push_back(entry.path().filename());
    }
    std::sort(names.begin(), names.end());
    return names;
  }
  std::string Content(const std::string& name) const {
    std::ifstream file(directory_->File(name), std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  uint64_t Allocated(const std::string& name) const { return pool_->Stat(name)->allocated.value; }

  // Writes `bytes` at `offset` of a file, which is made if it is missing, and makes it durable, so
  // that its blocks count.
  void Write(const std::string& name, uint64_t offset, std::string_view bytes) const {
    const int fd = open(directory_->File(name).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    ASSERT_GE(fd, 0);
    const auto length = static_cast<ssize_t>(bytes.size());
    EXPECT_EQ(pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset)), length);
    EXPECT_EQ(fsync(fd), 0);
    close(fd);
  }
  void SetSize(const std::string& name, uint64_t size) const {
    std::filesystem::resize_file(directory_->File(name), size);
  }
  // Gives a file an image's identity.
  void Own(const std::string& name, const std::string& uid) const {
    const absl::StatusOr<io::UniqueFd> file = pool_->Open(name, {.writable = true});
    ASSERT_TRUE(file.ok()) << file.status();
    ASSERT_TRUE(io::SetFileUid(file->get(), uid).ok());
  }

  std::unique_ptr<test::TempDir> directory_ = std::make_unique<test::TempDir>();
  std::unique_ptr<io::Directory> pool_;
};

}  // namespace gabion::engine
