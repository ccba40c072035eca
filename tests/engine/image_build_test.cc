// Files of images that are made in pieces, and the crashes in between.
#include "engine/image_build.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>

#include <csignal>
#include <limits>
#include <optional>
#include <utility>

#include "engine/base/reason.h"
#include "engine/image_removal.h"
#include "engine/io/file_lock.h"
#include "tests/engine/image_files_fixture.h"

namespace gabion::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::UnorderedElementsAre;

constexpr uint64_t kTiB = 1024 * kGiB;
constexpr ByteCount kAll{std::numeric_limits<uint64_t>::max()};
constexpr ByteCount kStep{12 * kKiB};

std::string ReasonIn(const absl::Status& status) {
  const std::optional<Reason> reason = ReasonOf(status);
  return reason.has_value() ? reason->reason : "";
}

// While it lives, this process can make no file larger than that.
class SmallFiles {
 public:
  explicit SmallFiles(uint64_t bytes) {
    EXPECT_EQ(getrlimit(RLIMIT_FSIZE, &before_), 0);
    const rlimit small{bytes, before_.rlim_max};
    EXPECT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  }
  ~SmallFiles() {
    EXPECT_EQ(setrlimit(RLIMIT_FSIZE, &before_), 0);
    std::signal(SIGXFSZ, handler_);
  }
  SmallFiles(const SmallFiles&) = delete;
  SmallFiles& operator=(const SmallFiles&) = delete;

 private:
  rlimit before_ = {};
  void (*const handler_)(int) = std::signal(SIGXFSZ, SIG_IGN);
};

class ImageBuildTest : public ImageFilesTest {
 protected:
  absl::StatusOr<BuildProgress> Piece(const ImageBuild& build, uint64_t from,
                                      ByteCount budget = kStep) {
    OpenPool();
    return BuildImageFile(*pool_, build, ByteOffset{from}, budget);
  }

  // Goes on from `from` to the end; what each piece answered as done.
  std::vector<uint64_t> Finish(const ImageBuild& build, uint64_t from) {
    std::vector<uint64_t> steps;
    while (true) {
      const absl::StatusOr<BuildProgress> progress = Piece(build, from);
      EXPECT_TRUE(progress.ok()) << progress.status();
      if (!progress.ok()) return steps;
      steps.push_back(progress->done.value);
      if (progress->complete) {
        EXPECT_EQ(progress->done, progress->total);
        EXPECT_EQ(progress->info.virtual_size, progress->total);
        return steps;
      }
      EXPECT_GT(progress->done.value, from) << "no piece is for nothing";
      from = progress->done.value;
    }
  }

  // Data, holes, and an odd end.
  void MakeSource(const std::string& name = "source") const {
    Write(name, 0, std::string(8192, 'a'));
    Write(name, 32 * kKiB, std::string(20000, 'b'));
    Write(name, 80 * kKiB, std::string(4096, 'c'));
    SetSize(name, 120 * kKiB);
    Write(name, 120 * kKiB, std::string(777, 'd'));
  }

  static ImageBuild Import(const std::string& id) {
    return {.spec = Spec(id), .source_file = "source"};
  }
};

TEST_F(ImageBuildTest, NewImageOfHolesIsOnePiece) {
  const ImageBuild build{.spec = Spec("a"), .size = ByteCount{kTiB}};
  EXPECT_THAT(Finish(build, 0), ElementsAre(kTiB));
  EXPECT_THAT(Names(), ElementsAre("a.raw"));
  EXPECT_EQ(Allocated("a.raw"), 0u);
  EXPECT_EQ(pool_->Stat("a.raw")->size.value, kTiB);
}

TEST_F(ImageBuildTest, EmptyImageIsAnImage) {
  EXPECT_THAT(Finish({.spec = Spec("a")}, 0), ElementsAre(0u));
  EXPECT_THAT(Names(), ElementsAre("a.raw"));
}

TEST_F(ImageBuildTest, CopyIsTheSourceWithItsHoles) {
  MakeSource();
  const std::vector<uint64_t> steps = Finish(Import("a"), 0);
  EXPECT_GT(steps.size(), 2u);
  EXPECT_THAT(Names(), ElementsAre("a.raw", "source"));
  EXPECT_EQ(Content("a.raw"), Content("source"));
  EXPECT_EQ(Allocated("a.raw"), Allocated("source"));
}

TEST_F(ImageBuildTest, HolesCountLittle) {
  Write("source", 0, "a");
  SetSize("source", 8 * kTiB);
  EXPECT_LE(Finish(Import("a"), 0).size(), 2u);
}

// After every piece the engine ends; the next one asks again from each place that was ever told.
TEST_F(ImageBuildTest, EveryPieceMayBeRepeatedFromEveryEarlierPlaceAfterARestart) {
  for (const Preallocation preallocation :
       {Preallocation::kOff, Preallocation::kFalloc, Preallocation::kFull}) {
    NewPool();
    MakeSource();
    ImageBuild build = Import("whole");
    build.preallocation = preallocation;
    ASSERT_TRUE(Piece(build, 0, kAll)->complete);
    const std::string content = Content("whole.raw");
    const uint64_t allocated = Allocated("whole.raw");
    build.spec = Spec("probe");
    const std::vector<uint64_t> steps = Finish(build, 0);
    build.spec = Spec("a");
    for (std::size_t crash = 0; crash < steps.size(); ++crash) {
      for (std::size_t again = 0; again <= crash; ++again) {
        uint64_t from = 0;
        for (std::size_t i = 0; i < crash; ++i) from = Piece(build, from)->done.value;
        Finish(build, again == 0 ? 0 : steps[again - 1]);
        EXPECT_EQ(Content("a.raw"), content) << crash << " " << again;
        EXPECT_EQ(Allocated("a.raw"), allocated) << crash << " " << again;
        EXPECT_THAT(Names(), ElementsAre("a.raw", "probe.raw", "source", "whole.raw"));
        EXPECT_THAT(Finish(build, from), ElementsAre(content.size())) << "complete already";
        ASSERT_TRUE(RemoveImageFile(*pool_, build.spec, kAll)->complete);
      }
    }
  }
}

TEST_F(ImageBuildTest, WhatACrashWithinAPieceLeavesIsTakenUp) {
  MakeSource();
  const std::string content = Content("source");
  // The file is there, and says nothing yet.
  Write(".uid-a.unfinished", 0, "");
  Finish(Import("a"), 0);
  EXPECT_EQ(Content("a.raw"), content);
  // The file is complete and has lost its note, but has no name.
  std::filesystem::rename(directory_->File("a.raw"), directory_->File(".uid-a.unfinished"));
  EXPECT_THAT(Finish(Import("a"), content.size()), ElementsAre(content.size()));
  EXPECT_EQ(Content("a.raw"), content);
  // The same, and whoever asks has forgotten how far it was.
  std::filesystem::rename(directory_->File("a.raw"), directory_->File(".uid-a.unfinished"));
  Finish(Import("a"), 0);
  EXPECT_EQ(Content("a.raw"), content);
  // Something else was being made.
  Write(".uid-b.unfinished", 0, std::string(kMiB, 'z'));
  Finish(Import("b"), 0);
  EXPECT_EQ(Content("b.raw"), content);
  EXPECT_EQ(Allocated("b.raw"), Allocated("source"));
  // The unfinished file is gone: it begins again, wherever that was.
  EXPECT_LT(Piece(Import("c"), 80 * kKiB)->done.value, 80 * kKiB);
  Finish(Import("c"), 80 * kKiB);
  EXPECT_THAT(Names(), ElementsAre("a.raw", "b.raw", "c.raw", "source"));
}

TEST_F(ImageBuildTest, SourceThatChangedInBetweenIsAnError) {
  const std::vector<void (*)(const std::string&)> changes = {
      [](const std::string& path) { std::filesystem::resize_file(path, kMiB); },
      [](const std::string& path) {
        std::filesystem::rename(path, path + ".old");
        std::filesystem::copy_file(path + ".old", path);
      },
      [](const std::string& path) {
        std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
        file.write("new", 3);
      }};
  for (const auto change : changes) {
    NewPool();
    MakeSource();
    const uint64_t from = Piece(Import("a"), 0)->done.value;
    change(directory_->File("source"));
    const absl::Status refused = Piece(Import("a"), from).status();
    EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition) << refused;
    EXPECT_THAT(std::string(refused.message()), HasSubstr("changed"));
    Finish(Import("a"), 0);
    EXPECT_EQ(Content("a.raw"), Content("source")) << "from the beginning it is a new copy";
  }
}

TEST_F(ImageBuildTest, PreallocationTakesTheSpace) {
  for (const Preallocation preallocation : {Preallocation::kFalloc, Preallocation::kFull}) {
    const std::string id = preallocation == Preallocation::kFull ? "full" : "falloc";
    const ImageBuild build{
        .spec = Spec(id), .size = ByteCount{3 * kMiB + 5}, .preallocation = preallocation};
    const std::vector<uint64_t> steps = Finish(build, 0);
    EXPECT_GT(steps.size(), 2u);
    EXPECT_GE(Allocated(id + ".raw"), 3 * kMiB);
    EXPECT_EQ(Content(id + ".raw"), std::string(3 * kMiB + 5, '\0'));
  }
}

TEST_F(ImageBuildTest, PoolThatIsFullIsSaidBeforehand) {
  const absl::StatusOr<io::DirectorySpace> space = pool_->Space();
  ASSERT_TRUE(space.ok());
  ImageBuild build{.spec = Spec("a"),
                   .size = ByteCount{space->size.value + kGiB},
                   .preallocation = Preallocation::kFull};
  EXPECT_EQ(ReasonIn(CheckImageBuild(*pool_, build).status()), "POOL_FULL");
  EXPECT_EQ(ReasonIn(Piece(build, 0).status()), "POOL_FULL");
  EXPECT_THAT(Names(), IsEmpty());
  build.preallocation = Preallocation::kOff;
  const absl::StatusOr<BuildProgress> sparse = CheckImageBuild(*pool_, build);
  ASSERT_TRUE(sparse.ok()) << "holes take nothing: " << sparse.status();
  EXPECT_EQ(sparse->total, build.size);
  EXPECT_THAT(Names(), IsEmpty());
}

// The process may write files of 1 MiB.
TEST_F(ImageBuildTest, WorkThatComesToTheLargestFileSaysSoAndIsRemoved) {
  const ImageBuild build{
      .spec = Spec("a"), .size = ByteCount{2 * kMiB}, .preallocation = Preallocation::kFull};
  uint64_t from = Piece(build, 0)->done.value;
  std::optional<SmallFiles> small(std::in_place, kMiB);
  absl::Status status;
  while (status.ok() && from < 2 * kMiB) {
    const absl::StatusOr<BuildProgress> progress = Piece(build, from);
    status = progress.status();
    if (progress.ok()) from = progress->done.value;
  }
  small.reset();
  EXPECT_EQ(ReasonIn(status), "SIZE_OUT_OF_RANGE") << status;
  EXPECT_GT(from, kMiB - kStep.value) << "as far as there was room";
  EXPECT_LE(from, kMiB);
  EXPECT_THAT(Names(), ElementsAre(".uid-a.unfinished"));
  EXPECT_TRUE(RemoveImageFile(*pool_, build.spec, kAll)->complete);
  EXPECT_THAT(Names(), IsEmpty());
}

TEST_F(ImageBuildTest, FileSystemThatFillsUpInBetweenIsSaid) {
  if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
      mount("tmpfs", directory_->path().c_str(), "tmpfs", 0, "size=1m") != 0) {
    GTEST_SKIP() << "mounting a file system is not allowed here";
  }
  for (const Preallocation preallocation : {Preallocation::kFalloc, Preallocation::kFull}) {
    const ImageBuild build{
        .spec = Spec("a"), .size = ByteCount{800 * kKiB}, .preallocation = preallocation};
    const absl::StatusOr<BuildProgress> first = Piece(build, 0, ByteCount{4096});
    ASSERT_TRUE(first.ok() && !first->complete) << first.status();
    Write("other", 0, std::string(512 * kKiB, 'x'));
    EXPECT_EQ(ReasonIn(Piece(build, first->done.value, kAll).status()), "POOL_FULL");
    EXPECT_TRUE(RemoveImageFile(*pool_, build.spec, kAll)->complete);
    EXPECT_THAT(Names(), ElementsAre("other"));
    std::filesystem::remove(directory_->File("other"));
  }
  pool_.reset();
  EXPECT_EQ(umount(directory_->path().c_str()), 0);
}

TEST_F(ImageBuildTest, FileOfSomebodyElseIsLeftAlone) {
  MakeSource();
  Write("a.raw", 0, "mine");
  for (const bool owned : {false, true}) {
    if (owned) Own("a.raw", "uid-other");
    EXPECT_EQ(ReasonIn(CheckImageBuild(*pool_, Import("a")).status()), "RESOURCE_EXISTS");
    const absl::Status refused = Piece(Import("a"), 0).status();
    EXPECT_EQ(refused.code(), absl::StatusCode::kAlreadyExists);
    EXPECT_EQ(ReasonIn(refused), "RESOURCE_EXISTS");
  }
  EXPECT_EQ(Content("a.raw"), "mine");
  EXPECT_THAT(Names(), ElementsAre("a.raw", "source"));
  // It comes when the work has begun.
  const uint64_t from = Piece(Import("b"), 0)->done.value;
  Write("b.raw", 0, "mine");
  EXPECT_EQ(ReasonIn(Piece(Import("b"), from).status()), "RESOURCE_EXISTS");
  EXPECT_EQ(Content("b.raw"), "mine");
}

TEST_F(ImageBuildTest, CheckFindsWhatIsWrongWithTheSource) {
  EXPECT_EQ(CheckImageBuild(*pool_, Import("a")).status().code(), absl::StatusCode::kNotFound);
  ImageBuild outside = Import("a");
  outside.source_file = "../source";
  EXPECT_EQ(ReasonIn(CheckImageBuild(*pool_, outside).status()), "PATH_OUTSIDE_POOL");
  MakeSource();
  EXPECT_EQ(CheckImageBuild(*pool_, Import("a"))->total.value, 120 * kKiB + 777);
  const absl::StatusOr<io::UniqueFd> file = pool_->Open("source", {.writable = true});
  io::FileLock writer(file->get());
  ASSERT_TRUE(writer.Acquire(io::LockMode::kWriter).ok());
  EXPECT_EQ(ReasonIn(CheckImageBuild(*pool_, Import("a")).status()), "IMAGE_LOCKED");
  EXPECT_EQ(ReasonIn(Piece(Import("a"), 0).status()), "IMAGE_LOCKED");
  writer.Release();
  EXPECT_THAT(Names(), ElementsAre("source")) << "checking leaves nothing";
}

TEST_F(ImageBuildTest, CheckFindsASizeThatNoFileCanHave) {
  const SmallFiles small(kMiB);
  EXPECT_EQ(CheckImageBuild(*pool_, {.spec = Spec("a"), .size = ByteCount{kMiB}})->total.value,
            kMiB);
  const absl::Status status =
      CheckImageBuild(*pool_, {.spec = Spec("a"), .size = ByteCount{kMiB + 1}}).status();
  EXPECT_EQ(ReasonIn(status), "SIZE_OUT_OF_RANGE") << status;
  EXPECT_TRUE(CheckFileSize(*pool_, ByteCount{kMiB}).ok());
  EXPECT_EQ(ReasonIn(CheckFileSize(*pool_, ByteCount{kMiB + 1})), "SIZE_OUT_OF_RANGE");
  EXPECT_THAT(Names(), IsEmpty()) << "checking leaves nothing";
}

TEST_F(ImageBuildTest, WhatIsWrongWithTheSourceNamesItsFieldAndNotTheImage) {
  const auto expect = [&](const std::string& file, bool move, const std::string& reason) {
    const ImageBuild build{.spec = Spec("a"), .source_file = file, .move = move};
    for (const absl::Status& status :
         {CheckImageBuild(*pool_, build).status(), Piece(build, 0).status()}) {
      EXPECT_EQ(ReasonIn(status), reason) << status;
      EXPECT_THAT(ReasonOf(status)->metadata,
                  ::testing::Contains(::testing::Pair("field", "source_file")));
      EXPECT_THAT(std::string(status.message()), Not(HasSubstr("images/a"))) << status;
    }
  };
  expect("none", false, "RESOURCE_NOT_FOUND");
  expect("../none", false, "PATH_OUTSIDE_POOL");
  std::filesystem::create_directory(directory_->File("folder"));
  expect("folder", false, "FIELD_INVALID");
  Write("empty", 0, "");
  expect("empty", false, "SIZE_OUT_OF_RANGE");
  expect("empty", true, "SIZE_OUT_OF_RANGE");
  Write("other", 0, "content");
  Own("other", "uid-other");
  expect("other", true, "IMAGE_REPLACED");
  const absl::StatusOr<io::UniqueFd> file = pool_->Open("other", {.writable = true});
  io::FileLock writer(file->get());
  ASSERT_TRUE(writer.Acquire(io::LockMode::kWriter).ok());
  expect("other", false, "IMAGE_LOCKED");
  EXPECT_THAT(Names(), ElementsAre("empty", "folder", "other"));
}

TEST_F(ImageBuildTest, MovedFileIsTheImageAtOnceAndOnlyOnce) {
  MakeSource();
  const std::string content = Content("source");
  ImageBuild build = Import("a");
  build.move = true;
  EXPECT_EQ(CheckImageBuild(*pool_, build)->total.value, content.size());
  EXPECT_EQ(Names(), std::vector<std::string>{"source"});
  EXPECT_THAT(Finish(build, 0), ElementsAre(content.size()));
  EXPECT_THAT(Finish(build, 0), ElementsAre(content.size())) << "asked again";
  EXPECT_THAT(Finish(build, content.size()), ElementsAre(content.size()));
  EXPECT_THAT(Names(), ElementsAre("a.raw"));
  EXPECT_EQ(Content("a.raw"), content);
  // A crash after the file has been marked.
  std::filesystem::rename(directory_->File("a.raw"), directory_->File("source"));
  EXPECT_THAT(Finish(build, 0), ElementsAre(content.size()));
  ImageBuild thief{.spec = Spec("b"), .source_file = "a.raw", .move = true};
  EXPECT_EQ(ReasonIn(CheckImageBuild(*pool_, thief).status()), "IMAGE_REPLACED");
  EXPECT_EQ(ReasonIn(Piece(thief, 0).status()), "IMAGE_REPLACED");
  thief.preallocation = Preallocation::kFull;
  EXPECT_EQ(Piece(thief, 0).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Names(), ElementsAre("a.raw"));
}

}  // namespace
}  // namespace gabion::engine
