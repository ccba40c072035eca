#include "engine/image.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <memory>
#include <string>
#include <utility>

#include "engine/base/reason.h"
#include "engine/image_files.h"
#include "engine/image_removal.h"
#include "tests/engine/raw_image_fixture.h"
#include "tests/support/memory_node.h"

namespace gabion::engine {
namespace {

class ImageTest : public RawImageTest, public Image::GrowthObserver {
 protected:
  std::unique_ptr<Image> Open(const test::MemoryNodeOptions& disk) {
    absl::StatusOr<OpenedImage> opened = OpenImageFile(*pool_, spec_, /*direct=*/false);
    EXPECT_TRUE(opened.ok()) << opened.status();
    file_ = std::move(opened->file);
    Image::Parts parts{.format = std::make_unique<test::MemoryNode>(disk),
                       .lock_fd = std::move(opened->lock_fd),
                       .lock = opened->lock};
    return std::make_unique<Image>(spec_, std::move(parts), ready_, *this);
  }

  absl::Status Close(Image& image) {
    file_ = io::UniqueFd();
    Task<absl::Status> closed = image.Close();
    ready_.RunUntilIdle();
    return closed.Take();
  }

  io::UniqueFd OpenAside() const {
    return io::UniqueFd(open((directory_.path() + "/a.raw").c_str(), O_RDWR | O_CLOEXEC));
  }

  runtime::ReadyQueue ready_;
  io::UniqueFd file_;
  int grown_ = 0;

 private:
  void OnImageGrown(Image&) override { ++grown_; }
};

TEST_F(ImageTest, WriterKeepsOtherWritersOutUntilItLeaves) {
  const std::unique_ptr<Image> image = Open({.size = 4096});
  ASSERT_TRUE(image->AddUser(ImageUse::kRead).Take().ok());
  ASSERT_TRUE(image->AddUser(ImageUse::kWrite).Take().ok());
  const io::UniqueFd other = OpenAside();
  io::FileLock lock(other.get());
  EXPECT_FALSE(lock.Acquire(io::LockMode::kReader).ok());
  ASSERT_TRUE(image->RemoveUser(ImageUse::kWrite).done());
  EXPECT_TRUE(lock.Acquire(io::LockMode::kReader).ok());
  lock.Release();
  ASSERT_TRUE(image->RemoveUser(ImageUse::kRead).done());
  EXPECT_TRUE(Close(*image).ok());
}

// Another process that looks for conflicts takes its locks first: it may stand in the way of a
// change that cannot conflict with anything.
TEST_F(ImageTest, ForeignLockWhileTheWriterLeavesIsSurvived) {
  const std::unique_ptr<Image> image = Open({.size = 4096});
  ASSERT_TRUE(image->AddUser(ImageUse::kRead).Take().ok());
  ASSERT_TRUE(image->AddUser(ImageUse::kWrite).Take().ok());
  const io::UniqueFd other = OpenAside();
  struct flock byte = {};
  byte.l_type = F_RDLCK;
  byte.l_whence = SEEK_SET;
  byte.l_start = 101;  // "uses write"
  byte.l_len = 1;
  ASSERT_EQ(fcntl(other.get(), F_OFD_SETLK, &byte), 0);
  ASSERT_TRUE(image->RemoveUser(ImageUse::kWrite).done());
  EXPECT_EQ(image->users(), 1u);
  byte.l_type = F_UNLCK;
  ASSERT_EQ(fcntl(other.get(), F_OFD_SETLK, &byte), 0);
  EXPECT_TRUE(image->AddUser(ImageUse::kWrite).Take().ok());
  ASSERT_TRUE(image->RemoveUser(ImageUse::kWrite).done());
  ASSERT_TRUE(image->RemoveUser(ImageUse::kRead).done());
  EXPECT_TRUE(Close(*image).ok());
}

TEST_F(ImageTest, FileThatCannotBeWrittenHasNoWriters) {
  const std::unique_ptr<Image> image = Open({.size = 4096, .writable = false});
  const absl::Status refused = image->AddUser(ImageUse::kWrite).Take();
  ASSERT_TRUE(ReasonOf(refused).has_value());
  EXPECT_EQ(ReasonOf(refused)->reason, "IMAGE_NOT_WRITABLE");
  EXPECT_EQ(image->users(), 0u);
  EXPECT_TRUE(Close(*image).ok());
}

TEST_F(ImageTest, GrowthIsToldOnceAndNeverUndone) {
  const std::unique_ptr<Image> image = Open({.size = 4096});
  Task<absl::Status> more = image->Grow(ByteCount{8192});
  Task<absl::Status> less = image->Grow(ByteCount{6000});
  ready_.RunUntilIdle();
  EXPECT_TRUE(more.Take().ok());
  EXPECT_TRUE(less.Take().ok());
  EXPECT_EQ(image->root().limits().size.value, 8192u);
  EXPECT_EQ(grown_, 1);
  EXPECT_TRUE(Close(*image).ok());
}

TEST_F(ImageTest, GrowthThatFailsIsNotTold) {
  const std::unique_ptr<Image> image = Open({.size = 4096, .resizable = false});
  Task<absl::Status> grown = image->Grow(ByteCount{8192});
  ready_.RunUntilIdle();
  EXPECT_FALSE(grown.Take().ok());
  EXPECT_EQ(grown_, 0);
  EXPECT_EQ(image->root().limits().size.value, 4096u);
  EXPECT_TRUE(Close(*image).ok());
}

TEST_F(ImageTest, RepeatedCreationFindsTheFileAndLeavesItAlone) {
  const std::unique_ptr<Image> image = Open({.size = 4096});
  ASSERT_TRUE(image->AddUser(ImageUse::kWrite).Take().ok());
  const absl::StatusOr<ImageInfo> again = CreateImageFile(*pool_, spec_, ByteCount{512});
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->virtual_size.value, 4096u);
  EXPECT_EQ(StatImageFile(*pool_, spec_)->virtual_size.value, 4096u);
  ASSERT_TRUE(image->RemoveUser(ImageUse::kWrite).done());
  EXPECT_TRUE(Close(*image).ok());
}

TEST_F(ImageTest, UnfinishedFileOfAnInterruptedCreationIsReplaced) {
  ImageSpec other = spec_;
  other.name = "images/other";
  other.uid = "other-uid";
  other.file_name = "other.raw";
  ASSERT_TRUE(pool_->Create(".other-uid.unfinished").ok());
  const absl::StatusOr<ImageInfo> made = CreateImageFile(*pool_, other, ByteCount{512});
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_EQ(made->virtual_size.value, 512u);
  EXPECT_EQ(pool_->Stat(".other-uid.unfinished").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(ImageTest, FileOfSomebodyElseIsNeitherTakenNorDeleted) {
  ImageSpec other = spec_;
  other.name = "images/other";
  other.uid = "other-uid";
  other.file_name = "other.raw";
  ASSERT_TRUE(pool_->Create("other.raw").ok());
  const absl::StatusOr<ImageInfo> made = CreateImageFile(*pool_, other, ByteCount{512});
  ASSERT_TRUE(ReasonOf(made.status()).has_value()) << made.status();
  EXPECT_EQ(ReasonOf(made.status())->reason, "RESOURCE_EXISTS");
  EXPECT_EQ(pool_->Stat(".other-uid.unfinished").status().code(), absl::StatusCode::kNotFound);
  const absl::Status deleted = RemoveImageFile(*pool_, other, ByteCount{kMiB}).status();
  ASSERT_TRUE(ReasonOf(deleted).has_value()) << deleted;
  EXPECT_EQ(ReasonOf(deleted)->reason, "IMAGE_REPLACED");
  EXPECT_TRUE(pool_->Stat("other.raw").ok());
}

TEST_F(ImageTest, FileOfAnotherImageIsNotAdopted) {
  ImageSpec thief = spec_;
  thief.name = "images/thief";
  thief.uid = "thief-uid";
  thief.file_name = "thief.raw";
  const absl::StatusOr<ImageInfo> stolen =
      ImportImageFile(*pool_, thief, spec_.file_name, /*move=*/true);
  ASSERT_TRUE(ReasonOf(stolen.status()).has_value()) << stolen.status();
  EXPECT_EQ(ReasonOf(stolen.status())->reason, "IMAGE_REPLACED");
  EXPECT_TRUE(pool_->Stat(spec_.file_name).ok());
  EXPECT_EQ(pool_->Stat("thief.raw").status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace gabion::engine
