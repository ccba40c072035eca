// The work on image files through the engine: in pieces, over restarts, beside exports.
#include <gtest/gtest.h>
#include <libnbd.h>

#include <fstream>
#include <string>
#include <vector>

#include "engine/base/reason.h"
#include "tests/engine/engine_fixture.h"

namespace gabion::engine {
namespace {

class EngineImagesTest : public EngineTest {
 protected:
  absl::StatusOr<BuildProgress> Build(const ImageBuild& build, uint64_t from, uint64_t budget) {
    return Wait<absl::StatusOr<BuildProgress>>([&](auto done) {
      engine_->BuildImage(build, ByteOffset{from}, ByteCount{budget}, std::move(done));
    });
  }
  absl::StatusOr<RemovalProgress> Remove(const std::string& id, uint64_t budget) {
    return Wait<absl::StatusOr<RemovalProgress>>(
        [&](auto done) { engine_->RemoveImage(Image(id), ByteCount{budget}, std::move(done)); });
  }
  absl::Status CheckRemoval(const std::string& id) {
    return Wait<absl::Status>(
        [&](auto done) { engine_->CheckRemoval(Image(id), std::move(done)); });
  }
  absl::StatusOr<std::vector<std::string>> Sweep(const std::string& pool,
                                                 std::vector<std::string> keep) {
    return Wait<absl::StatusOr<std::vector<std::string>>>(
        [&](auto done) { engine_->SweepPool(pool, std::move(keep), std::move(done)); });
  }
  void Restart() {
    Stop();
    Start();
  }
};

TEST_P(EngineImagesTest, AnImageIsMadeServedAndRemovedOverRestarts) {
  const ImageBuild build{
      .spec = Image("a"), .size = ByteCount{kMiB}, .preallocation = Preallocation::kFull};
  const auto checked = Wait<absl::StatusOr<BuildProgress>>(
      [&](auto done) { engine_->CheckBuild(build, std::move(done)); });
  ASSERT_TRUE(checked.ok()) << checked.status();
  EXPECT_EQ(checked->total.value, kMiB);
  BuildProgress made;
  while (!made.complete) {
    const absl::StatusOr<BuildProgress> next = Build(build, made.done.value, 300 * kKiB);
    ASSERT_TRUE(next.ok()) << next.status();
    made = *next;
    Restart();
  }
  ASSERT_TRUE(CreateExport(Export("e", "a")).ok());
  EXPECT_EQ(ReasonOf(CheckRemoval("a"))->reason, "IMAGE_IN_USE");
  EXPECT_EQ(ReasonOf(Remove("a", kMiB).status())->reason, "IMAGE_IN_USE");
  EXPECT_TRUE(fs::exists(directory_ / "images" / "a.raw"));
  ImageSpec earlier = Image("a");
  earlier.uid = "uid-of-before";
  const auto nothing = Wait<absl::StatusOr<RemovalProgress>>(
      [&](auto done) { engine_->RemoveImage(earlier, ByteCount{kMiB}, std::move(done)); });
  ASSERT_TRUE(nothing.ok()) << "what is in use is another image: " << nothing.status();
  EXPECT_TRUE(nothing->complete);
  ASSERT_TRUE(DeleteExport("exports/e", DeleteMode::kHard).ok());
  EXPECT_TRUE(CheckRemoval("a").ok());
  RemovalProgress removed;
  while (!removed.complete) {
    const absl::StatusOr<RemovalProgress> next = Remove("a", 300 * kKiB);
    ASSERT_TRUE(next.ok()) << next.status();
    removed = *next;
    EXPECT_FALSE(fs::exists(directory_ / "images" / "a.raw"));
    Restart();
  }
  EXPECT_TRUE(fs::is_empty(directory_ / "images"));
}

// Both at once, again and again: whoever comes second finds the file gone, or in use.
TEST_P(EngineImagesTest, AnImageIsNotServedOnceItsRemovalHasBegun) {
  const ImageBuild build{
      .spec = Image("a"), .size = ByteCount{256 * kKiB}, .preallocation = Preallocation::kFalloc};
  for (int i = 0; i < 200; ++i) {
    ASSERT_TRUE(Build(build, 0, kGiB).ok());
    std::promise<absl::Status> served;
    std::promise<absl::Status> removed;
    engine_->CreateExport(Export("e", "a"), [&](const absl::StatusOr<ExportState>& state) {
      served.set_value(state.status());
    });
    engine_->RemoveImage(Image("a"), ByteCount{4096},
                         [&](const absl::StatusOr<RemovalProgress>& progress) {
                           removed.set_value(progress.status());
                         });
    const absl::Status serving = served.get_future().get();
    const absl::Status removing = removed.get_future().get();
    EXPECT_FALSE(serving.ok() && removing.ok()) << i;
    if (serving.ok()) {
      ASSERT_TRUE(DeleteExport("exports/e", DeleteMode::kHard).ok());
    }
    ASSERT_TRUE(Remove("a", kGiB).ok());
  }
}

// Whoever comes second finds the image in use, or as small as it has become.
TEST_P(EngineImagesTest, AnImageIsNotServedWhileItBecomesSmaller) {
  for (const ImageFormat format : {ImageFormat::kRaw, ImageFormat::kQcow2}) {
    ExportSpec exported = Export("e", "a");
    exported.image.format = format;
    const ImageBuild build{.spec = exported.image, .size = ByteCount{kMiB}};
    for (int i = 0; i < 50; ++i) {
      ASSERT_TRUE(Build(build, 0, kGiB).ok());
      std::promise<absl::StatusOr<ExportState>> served;
      std::promise<absl::StatusOr<ImageInfo>> shrunk;
      engine_->ShrinkImage(exported.image, ByteCount{4096},
                           [&](auto info) { shrunk.set_value(std::move(info)); });
      engine_->CreateExport(exported, [&](auto state) { served.set_value(std::move(state)); });
      const absl::StatusOr<ExportState> serving = served.get_future().get();
      const absl::StatusOr<ImageInfo> shrinking = shrunk.get_future().get();
      ASSERT_TRUE(serving.ok()) << serving.status();
      if (shrinking.ok()) {
        EXPECT_EQ(serving->effective.export_size.value, 4096u);
      } else {
        EXPECT_EQ(ReasonOf(shrinking.status())->reason, "IMAGE_IN_USE");
        EXPECT_EQ(serving->effective.export_size.value, kMiB);
      }
      ASSERT_TRUE(DeleteExport("exports/e", DeleteMode::kHard).ok());
      const auto removed = Wait<absl::StatusOr<RemovalProgress>>([&](auto done) {
        engine_->RemoveImage(exported.image, ByteCount{kGiB}, std::move(done));
      });
      ASSERT_TRUE(removed.ok()) << removed.status();
    }
  }
}

// The new file may carry no identity, so that only the open one tells.
TEST_P(EngineImagesTest, FileThatWasExchangedWhileItIsOpenIsNoticed) {
  ASSERT_TRUE(CreateImage("a", 4096).ok());
  ASSERT_TRUE(CreateImage("b", 4096).ok());
  const fs::path path = directory_ / "images" / "a.raw";
  const auto stat = [&] {
    return Wait<absl::StatusOr<ImageInfo>>(
        [&](auto done) { engine_->StatImage(Image("a"), std::move(done)); });
  };
  const auto in_batch = [&] {
    return Wait<std::vector<absl::StatusOr<ImageInfo>>>([&](auto done) {
      engine_->StatImages({Image("b"), Image("a")}, std::move(done));
    });
  };
  ASSERT_TRUE(CreateExport(Export("e", "a")).ok());
  EXPECT_TRUE(stat().ok());
  fs::rename(path, directory_ / "images" / "kept");
  EXPECT_EQ(ReasonOf(stat().status())->reason, "IMAGE_FILE_MISSING");
  std::ofstream(path) << std::string(4096, 'x');
  EXPECT_EQ(ReasonOf(stat().status())->reason, "IMAGE_REPLACED");
  EXPECT_TRUE(in_batch()[0].ok());
  EXPECT_EQ(ReasonOf(in_batch()[1].status())->reason, "IMAGE_REPLACED");
  ASSERT_TRUE(DeleteExport("exports/e", DeleteMode::kHard).ok());
  EXPECT_TRUE(stat().ok()) << "nothing says that it is another one";
  fs::rename(directory_ / "images" / "b.raw", path);
  EXPECT_EQ(ReasonOf(stat().status())->reason, "IMAGE_REPLACED") << "it says that it is images/b's";
  fs::rename(directory_ / "images" / "kept", path);
  EXPECT_TRUE(stat().ok());
}

TEST_P(EngineImagesTest, SweepingKeepsWhatIsAskedFor) {
  const ImageBuild build{
      .spec = Image("a"), .size = ByteCount{kMiB}, .preallocation = Preallocation::kFull};
  ASSERT_TRUE(Build(build, 0, 64 * kKiB).ok());
  ASSERT_TRUE(CreateImage("b", 4096).ok());
  EXPECT_TRUE(Sweep("pools/default", {"uid-a"})->empty());
  EXPECT_EQ(*Sweep("pools/default", {}), std::vector<std::string>{".uid-a.unfinished"});
  EXPECT_TRUE(fs::exists(directory_ / "images" / "b.raw"));
  EXPECT_EQ(ReasonOf(Sweep("pools/none", {}).status())->reason, "RESOURCE_NOT_FOUND");
}

TEST_P(EngineImagesTest, PoolsThatAreNotThereAreNamed) {
  ImageBuild build{.spec = Image("a"), .size = ByteCount{4096}};
  build.spec.pool = "pools/none";
  EXPECT_EQ(ReasonOf(Build(build, 0, 4096).status())->reason, "RESOURCE_NOT_FOUND");
}

INSTANTIATE_TEST_SUITE_P(Shards, EngineImagesTest, ::testing::Values(1u, 3u),
                         [](const auto& shards) { return "S" + std::to_string(shards.param); });

}  // namespace
}  // namespace gabion::engine
