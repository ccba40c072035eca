// Files of images that go away in pieces.
#include "engine/image_removal.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "engine/base/reason.h"
#include "engine/image_build.h"
#include "engine/image_owner.h"
#include "engine/io/file_lock.h"
#include "tests/engine/image_files_fixture.h"

namespace gabion::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr uint64_t kTiB = 1024 * kGiB;
constexpr ByteCount kAll{std::numeric_limits<uint64_t>::max()};

std::string ReasonIn(const absl::Status& status) {
  const std::optional<Reason> reason = ReasonOf(status);
  return reason.has_value() ? reason->reason : "";
}

class ImageRemovalTest : public ImageFilesTest {
 protected:
  void MakeImage(const std::string& id, uint64_t data_bytes) const {
    Write(id + ".raw", 0, std::string(data_bytes, 'x'));
    Own(id + ".raw", "uid-" + id);
  }

  RemovalProgress Piece(const std::string& id, uint64_t budget) {
    OpenPool();
    const absl::StatusOr<RemovalProgress> progress =
        RemoveImageFile(*pool_, Spec(id), ByteCount{budget});
    EXPECT_TRUE(progress.ok()) << progress.status();
    return progress.value_or(RemovalProgress{.complete = true});
  }
};

TEST_F(ImageRemovalTest, NameGoesFirstThenTheSpaceThenTheFile) {
  MakeImage("a", 4 * kMiB);
  const uint64_t all = Allocated("a.raw");
  RemovalProgress progress = Piece("a", kMiB);
  EXPECT_THAT(Names(), ElementsAre(".uid-a.removed"));
  EXPECT_EQ(progress.total.value, all);
  int pieces = 1;
  while (!progress.complete) {
    const uint64_t left = Allocated(".uid-a.removed");
    EXPECT_EQ(left, (progress.total - progress.done).value);
    EXPECT_GE(progress.done.value, kMiB - 8 * kKiB);
    EXPECT_LE(progress.done.value, kMiB + 64 * kKiB) << "no more than asked for, about";
    progress = Piece("a", kMiB);
    EXPECT_EQ(progress.total.value, left);
    ++pieces;
  }
  EXPECT_GE(pieces, 4);
  EXPECT_LE(pieces, 6);
  EXPECT_THAT(Names(), IsEmpty());
  progress = Piece("a", kMiB);
  EXPECT_TRUE(progress.complete) << "nothing is there";
  EXPECT_EQ(progress.total.value, 0u);
}

TEST_F(ImageRemovalTest, EveryPieceEndsAndAllOfThemDo) {
  for (const uint64_t budget : {1ull, 4096ull, 100'000ull, 1'000'000ull}) {
    MakeImage("a", 300 * kKiB);
    Write(".uid-a.unfinished", 0, std::string(100 * kKiB, 'y'));
    int pieces = 0;
    while (!Piece("a", budget).complete) ASSERT_LT(++pieces, 1000);
    EXPECT_THAT(Names(), IsEmpty()) << budget;
  }
}

TEST_F(ImageRemovalTest, HolesCountLittle) {
  MakeImage("a", 128 * kKiB);
  SetSize("a.raw", 8 * kTiB);
  for (uint64_t at = kGiB; at < 8 * kTiB; at += kTiB) Write("a.raw", at, std::string(4096, 'y'));
  int pieces = 1;
  while (!Piece("a", 128 * kKiB).complete) ++pieces;
  EXPECT_LE(pieces, 8);
  EXPECT_THAT(Names(), IsEmpty());
}

TEST_F(ImageRemovalTest, ReservedSpaceIsCutInPiecesToo) {
  const ImageBuild build{
      .spec = Spec("a"), .size = ByteCount{8 * kMiB}, .preallocation = Preallocation::kFalloc};
  ASSERT_TRUE(BuildImageFile(*pool_, build, ByteOffset{0}, kAll)->complete);
  int pieces = 1;
  while (!Piece("a", kMiB).complete) ++pieces;
  EXPECT_GE(pieces, 7);
}

TEST_F(ImageRemovalTest, UnfinishedFileGoesAsWell) {
  const ImageBuild build{
      .spec = Spec("a"), .size = ByteCount{kMiB}, .preallocation = Preallocation::kFull};
  ASSERT_TRUE(BuildImageFile(*pool_, build, ByteOffset{0}, ByteCount{256 * kKiB}).ok());
  ASSERT_THAT(Names(), ElementsAre(".uid-a.unfinished"));
  EXPECT_FALSE(Piece("a", 64 * kKiB).complete);
  EXPECT_THAT(Names(), ElementsAre(".uid-a.removed"));
  while (!Piece("a", 64 * kKiB).complete) {
  }
  EXPECT_THAT(Names(), IsEmpty());
}

TEST_F(ImageRemovalTest, FileOfAnotherImageIsLeftAloneAndNobodysIsAnError) {
  Write("a.raw", 0, "theirs");
  EXPECT_EQ(ReasonIn(CheckImageRemoval(*pool_, Spec("a"))), "IMAGE_REPLACED");
  EXPECT_EQ(ReasonIn(RemoveImageFile(*pool_, Spec("a"), kAll).status()), "IMAGE_REPLACED");
  Own("a.raw", "uid-other");
  EXPECT_TRUE(CheckImageRemoval(*pool_, Spec("a")).ok());
  EXPECT_TRUE(Piece("a", kMiB).complete);
  EXPECT_EQ(Content("a.raw"), "theirs");
}

TEST_F(ImageRemovalTest, NameIsFreeWhileTheRestGoes) {
  MakeImage("a", kMiB);
  EXPECT_FALSE(Piece("a", 64 * kKiB).complete);
  ImageSpec next = Spec("next");
  next.file_name = "a.raw";
  ASSERT_TRUE(
      BuildImageFile(*pool_, {.spec = next, .size = ByteCount{5}}, ByteOffset{0}, kAll)->complete);
  while (!Piece("a", 64 * kKiB).complete) {
  }
  EXPECT_THAT(Names(), ElementsAre("a.raw"));
  EXPECT_EQ(Content("a.raw"), std::string(5, '\0'));
}

TEST_F(ImageRemovalTest, FileThatAnotherProcessHoldsIsLeftAlone) {
  MakeImage("a", kMiB);
  const absl::StatusOr<io::UniqueFd> file = pool_->Open("a.raw", {.writable = true});
  io::FileLock reader(file->get());
  ASSERT_TRUE(reader.Acquire(io::LockMode::kReader).ok());
  EXPECT_EQ(ReasonIn(CheckImageRemoval(*pool_, Spec("a"))), "IMAGE_LOCKED");
  EXPECT_EQ(ReasonIn(RemoveImageFile(*pool_, Spec("a"), kAll).status()), "IMAGE_LOCKED");
  EXPECT_THAT(Names(), ElementsAre("a.raw"));
  reader.Release();
  EXPECT_TRUE(CheckImageRemoval(*pool_, Spec("a")).ok());
  EXPECT_THAT(Names(), ElementsAre("a.raw")) << "checking changes nothing";
  EXPECT_TRUE(Piece("a", 2 * kMiB).complete);
}

TEST_F(ImageRemovalTest, WhoeverHasOpenedTheFileLearnsThatItIsGoing) {
  MakeImage("a", kMiB);
  const absl::StatusOr<io::UniqueFd> file = pool_->Open("a.raw", {});
  EXPECT_TRUE(CheckStillNamed(*pool_, Spec("a"), file->get()).ok());
  EXPECT_FALSE(Piece("a", 4096).complete);
  EXPECT_EQ(ReasonIn(CheckStillNamed(*pool_, Spec("a"), file->get())), "IMAGE_FILE_MISSING");
  MakeImage("a", 4096);
  EXPECT_EQ(ReasonIn(CheckStillNamed(*pool_, Spec("a"), file->get())), "IMAGE_FILE_MISSING")
      << "another file of that name";
}

TEST_F(ImageRemovalTest, SweepingTakesWorkFilesThatNobodyKeeps) {
  for (const char* const name :
       {".uid-a.unfinished", ".uid-a.removed", ".uid-b.removed", ".uid-c.unfinished", "d.raw",
        "uid-e.removed", ".removed", ".unfinished", ".hidden", "..removed"}) {
    Write(name, 0, "x");
  }
  std::filesystem::create_directory(directory_->File(".uid-f.removed"));
  const absl::StatusOr<std::vector<std::string>> swept =
      SweepWorkFiles(*pool_, {"uid-b", "uid-d", "nobody"});
  ASSERT_TRUE(swept.ok()) << swept.status();
  EXPECT_THAT(*swept, ElementsAre(".uid-a.removed", ".uid-a.unfinished", ".uid-c.unfinished"));
  EXPECT_THAT(Names(), ElementsAre("..removed", ".hidden", ".removed", ".uid-b.removed",
                                   ".uid-f.removed", ".unfinished", "d.raw", "uid-e.removed"));
}

}  // namespace
}  // namespace gabion::engine
