#include "service/domain/image_manager.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "engine/base/reason.h"
#include "google/protobuf/util/time_util.h"
#include "tests/service/domain/fixture.h"
#include "tests/service/violations_of.h"

namespace gabion::service {
namespace {

using google::protobuf::util::TimeUtil;
using testing::ElementsAre;

using ImageManagerTest = DomainFixture;

TEST_F(ImageManagerTest, CreatedImageIsActiveWithItsDefaults) {
  const auto image = CreateImage("a", 1'000'300);
  ASSERT_TRUE(image.ok()) << image.status();
  EXPECT_EQ(image->name(), "images/a");
  EXPECT_EQ(image->pool(), "pools/default");
  EXPECT_EQ(image->state(), v1::Image::STATE_ACTIVE);
  EXPECT_EQ(image->generation(), 1u);
  EXPECT_EQ(image->virtual_size_bytes(), 1'000'300u);
  EXPECT_EQ(image->uid().size(), 36u);
  EXPECT_GT(image->create_time().seconds(), 0);
  EXPECT_EQ(files_.Get("a.raw").uid, image->uid());
  const auto got = domain_->images().Get("images/a");
  ASSERT_TRUE(got.ok());
  EXPECT_EQ(got->DebugString(), image->DebugString());
}

TEST_F(ImageManagerTest, ImageWithoutSizeIsRefused) {
  EXPECT_THAT(ViolationsOf(CreateImage("a", 0).status()),
              ElementsAre("image.virtual_size_bytes FIELD_REQUIRED"));
  EXPECT_EQ(files_.count(), 0u);
}

TEST_F(ImageManagerTest, ImageInAMissingPoolIsRefusedWithItsField) {
  v1::CreateImageRequest request;
  request.set_image_id("a");
  request.mutable_image()->set_pool("pools/none");
  request.mutable_image()->set_virtual_size_bytes(1);
  const absl::Status status = domain_->images().Create(request, Call()).status();
  EXPECT_EQ(ReasonIn(status), "RESOURCE_NOT_FOUND");
  EXPECT_EQ(MetadataIn(status, "field"), "image.pool");
}

TEST_F(ImageManagerTest, TakenNameTellsWhetherTheSpecIsTheSame) {
  ASSERT_TRUE(CreateImage("a").ok());
  EXPECT_EQ(ReasonIn(CreateImage("a").status()), "RESOURCE_EXISTS");
  const absl::Status different = CreateImage("a", 8192).status();
  EXPECT_EQ(ReasonIn(different), "RESOURCE_EXISTS_DIFFERENT");
  EXPECT_EQ(MetadataIn(different, "differing-fields"), "virtual_size_bytes");
}

TEST_F(ImageManagerTest, FailureOfTheEngineLeavesNothing) {
  engine_->FailNext("CheckBuild", WithReason(absl::ResourceExhaustedError("no space"),
                                             {"POOL_FULL", {{"pool", "pools/default"}}}));
  EXPECT_EQ(ReasonIn(CreateImage("a").status()), "POOL_FULL");
  EXPECT_EQ(ReasonIn(domain_->images().Get("images/a").status()), "RESOURCE_NOT_FOUND");
  EXPECT_EQ(files_.count(), 0u);
  EXPECT_TRUE(CreateImage("a").ok());
}

TEST_F(ImageManagerTest, ForeignFileOfTheSameNameIsLeftAlone) {
  files_.Put("a.raw", {"", "precious", false});
  EXPECT_EQ(ReasonIn(CreateImage("a").status()), "RESOURCE_EXISTS");
  EXPECT_EQ(files_.Get("a.raw").bytes, "precious");
  EXPECT_EQ(ReasonIn(domain_->images().Get("images/a").status()), "RESOURCE_NOT_FOUND");
}

TEST_F(ImageManagerTest, SizeIsWhatTheFileSays) {
  ASSERT_TRUE(CreateImage("a", 4096).ok());
  FakeFiles::File file = files_.Get("a.raw");
  file.bytes.resize(5000);
  files_.Put("a.raw", file);
  EXPECT_EQ(domain_->images().Get("images/a")->virtual_size_bytes(), 5000u);
}

TEST_F(ImageManagerTest, ImageWithoutFileIsUnavailableAndSaysWhy) {
  ASSERT_TRUE(CreateImage("a").ok());
  files_.Remove("a.raw");
  const auto image = domain_->images().Get("images/a");
  ASSERT_TRUE(image.ok());
  EXPECT_EQ(image->state(), v1::Image::STATE_UNAVAILABLE);
  EXPECT_EQ(image->state_error().code(), static_cast<int>(absl::StatusCode::kFailedPrecondition));
  EXPECT_EQ(ReasonIn(FromRpcStatus(image->state_error())), "IMAGE_FILE_MISSING");
  EXPECT_EQ(ReasonIn(CreateExport("e", "images/a").status()), "IMAGE_FILE_MISSING");
  v1::Image larger = *image;
  larger.set_virtual_size_bytes(8192);
  EXPECT_EQ(ReasonIn(UpdateImage(larger, "virtual_size_bytes").status()), "IMAGE_FILE_MISSING");
}

TEST_F(ImageManagerTest, SizeThatNoFileCanHaveIsRefusedAlsoInADryRun) {
  files_.SetMaxSize(10'000);
  const absl::Status created = CreateImage("a", 10'001).status();
  EXPECT_EQ(ReasonIn(created), "SIZE_OUT_OF_RANGE");
  EXPECT_THAT(ViolationsOf(created), ElementsAre("image.virtual_size_bytes SIZE_OUT_OF_RANGE"));
  EXPECT_EQ(files_.count(), 0u);
  auto image = CreateImage("a", 10'000);
  ASSERT_TRUE(image.ok()) << image.status();
  v1::UpdateImageRequest growth;
  growth.mutable_image()->set_name("images/a");
  growth.mutable_image()->set_virtual_size_bytes(10'001);
  for (const bool validate_only : {true, false}) {
    Call call;
    call.validate_only = validate_only;
    const absl::Status grown = domain_->images().Update(growth, call).status();
    EXPECT_EQ(ReasonIn(grown), "SIZE_OUT_OF_RANGE") << validate_only;
    EXPECT_EQ(grown.code(), absl::StatusCode::kOutOfRange);
  }
  EXPECT_EQ(domain_->images().Get("images/a")->generation(), 1u);
}

TEST_F(ImageManagerTest, TombstoneSaysUntilWhenItCanComeBack) {
  ASSERT_TRUE(CreateImage("a").ok());
  v1::DeleteImageRequest bury;
  bury.set_name("images/a");
  bury.mutable_retention()->set_seconds(3600);
  EXPECT_THAT(ViolationsOf(domain_->images().Delete(bury, Call()).status()),
              ElementsAre("retention FIELD_INVALID"));
  bury.set_mode(v1::DeleteImageRequest::MODE_TOMBSTONE);
  ASSERT_TRUE(domain_->images().Delete(bury, Call()).ok());
  const v1::Image buried = *domain_->images().Get("images/a");
  const absl::Status used = CreateExport("e", "images/a").status();
  EXPECT_EQ(ReasonIn(used), "IMAGE_DELETED");
  EXPECT_EQ(MetadataIn(used, "image"), "images/a");
  EXPECT_EQ(MetadataIn(used, "purge-time"), TimeUtil::ToString(buried.purge_time()));
}

TEST_F(ImageManagerTest, ConditionsSayWhenTheyBegan) {
  const auto at = [&](const std::string& type) {
    const v1::Image image = *domain_->images().Get("images/a");
    for (const v1::Condition& one : image.conditions()) {
      if (one.type() == type) return one;
    }
    ADD_FAILURE() << type;
    return v1::Condition();
  };
  ASSERT_TRUE(CreateImage("a").ok());
  const v1::Condition made = at("Ready");
  EXPECT_TRUE(made.satisfied());
  v1::DeleteImageRequest bury;
  bury.set_name("images/a");
  bury.set_mode(v1::DeleteImageRequest::MODE_TOMBSTONE);
  bury.mutable_retention()->set_seconds(3600);
  ASSERT_TRUE(domain_->images().Delete(bury, Call()).ok());
  Restart();  // the first who looks does so later
  const auto deleted = domain_->images().Get("images/a")->delete_time();
  EXPECT_FALSE(at("Ready").satisfied());
  EXPECT_EQ(at("Ready").reason(), "IMAGE_DELETED");
  EXPECT_EQ(at("Ready").last_transition_time(), deleted);
  EXPECT_TRUE(at("Deleted").satisfied());
  EXPECT_EQ(at("Deleted").last_transition_time(), deleted);
  v1::UndeleteImageRequest undelete;
  undelete.set_name("images/a");
  ASSERT_TRUE(domain_->images().Undelete(undelete, Call()).ok());
  const v1::Condition back = at("Deleted");
  EXPECT_FALSE(back.satisfied());
  EXPECT_LT(deleted, back.last_transition_time());
  EXPECT_EQ(at("Ready").last_transition_time(), back.last_transition_time());
  Restart();
  EXPECT_EQ(at("Deleted").last_transition_time(), back.last_transition_time());
  EXPECT_EQ(at("Ready").last_transition_time(), back.last_transition_time());
}

TEST_F(ImageManagerTest, FilesThatGoAndComeAreNoticedWithoutACall) {
  for (const char* id : {"a", "b", "c"}) ASSERT_TRUE(CreateImage(id).ok());
  uint64_t seen = *store_.Revision();
  const auto changes = [&] {
    EXPECT_TRUE(domain_->image_watch().Run().ok());
    const uint64_t from = seen;
    seen = *store_.Revision();
    std::vector<std::string> names;
    const auto logged = store_.Changes(from, 100);
    EXPECT_TRUE(logged.ok());
    for (const Change& change : *logged) names.push_back(change.name);
    return names;
  };
  EXPECT_THAT(changes(), ElementsAre());
  const FakeFiles::File file = files_.Get("b.raw");
  files_.Remove("b.raw");
  EXPECT_THAT(changes(), ElementsAre("images/b"));
  const auto since = domain_->images().Get("images/b")->conditions(0).last_transition_time();
  EXPECT_THAT(changes(), ElementsAre()) << "it is told once";
  EXPECT_EQ(domain_->images().Get("images/b")->conditions(0).last_transition_time(), since);
  files_.Put("b.raw", {"another", file.bytes, false});
  EXPECT_THAT(changes(), ElementsAre("images/b")) << "another reason";
  files_.Put("b.raw", file);
  EXPECT_THAT(changes(), ElementsAre("images/b"));
  EXPECT_EQ(domain_->images().Get("images/b")->state(), v1::Image::STATE_ACTIVE);
  ASSERT_TRUE(DeleteImage("images/b").ok());
  seen = *store_.Revision();
  EXPECT_THAT(changes(), ElementsAre());
}

TEST_F(ImageManagerTest, UpdateGrowsAndCountsGenerations) {
  auto image = CreateImage("a", 4096);
  ASSERT_TRUE(image.ok());
  image->set_virtual_size_bytes(10'000);
  (*image->mutable_labels())["k"] = "not in the mask";
  const auto grown = UpdateImage(*image, "virtual_size_bytes");
  ASSERT_TRUE(grown.ok()) << grown.status();
  EXPECT_EQ(grown->generation(), 2u);
  EXPECT_TRUE(grown->labels().empty());
  EXPECT_EQ(files_.Get("a.raw").bytes.size(), 10'000u);
  EXPECT_EQ(domain_->images().Get("images/a")->DebugString(), grown->DebugString());
}

TEST_F(ImageManagerTest, UpdateThatChangesNothingKeepsTheGeneration) {
  const auto image = CreateImage("a");
  const auto same = UpdateImage(*image, "virtual_size_bytes");
  ASSERT_TRUE(same.ok()) << same.status();
  EXPECT_EQ(same->generation(), 1u);
}

TEST_F(ImageManagerTest, ImagesDoNotShrink) {
  auto image = CreateImage("a", 4096);
  image->set_virtual_size_bytes(512);
  EXPECT_THAT(ViolationsOf(UpdateImage(*image, "virtual_size_bytes").status()),
              ElementsAre("image.virtual_size_bytes SHRINK_NOT_ALLOWED"));
  EXPECT_EQ(files_.Get("a.raw").bytes.size(), 4096u);
}

TEST_F(ImageManagerTest, GrowthThatFailsLeavesTheImageAsItWas) {
  auto image = CreateImage("a", 4096);
  image->set_virtual_size_bytes(8192);
  engine_->FailNext("GrowImage", absl::ResourceExhaustedError("no space"));
  EXPECT_EQ(ReasonIn(UpdateImage(*image, "virtual_size_bytes").status()), "POOL_FULL");
  const auto after = domain_->images().Get("images/a");
  EXPECT_EQ(after->generation(), 1u);
  EXPECT_EQ(after->virtual_size_bytes(), 4096u);
}

TEST_F(ImageManagerTest, PoolCannotChange) {
  auto image = CreateImage("a");
  image->set_pool("pools/other");
  EXPECT_THAT(ViolationsOf(UpdateImage(*image, "pool").status()),
              ElementsAre("image.pool FIELD_IMMUTABLE"));
}

TEST_F(ImageManagerTest, DeletedImageIsGoneWithItsFile) {
  const auto first = CreateImage("a");
  ASSERT_TRUE(DeleteImage("images/a").ok());
  EXPECT_EQ(files_.count(), 0u);
  EXPECT_EQ(ReasonIn(DeleteImage("images/a")), "RESOURCE_NOT_FOUND");
  const auto second = CreateImage("a");
  ASSERT_TRUE(second.ok());
  EXPECT_NE(second->uid(), first->uid());
}

TEST_F(ImageManagerTest, ServedImageIsNotDeleted) {
  ASSERT_TRUE(CreateImage("a").ok());
  ASSERT_TRUE(CreateExport("e1", "images/a").ok());
  ASSERT_TRUE(CreateExport("e2", "images/a").ok());
  const absl::Status status = DeleteImage("images/a");
  EXPECT_EQ(ReasonIn(status), "IMAGE_IN_USE");
  EXPECT_EQ(MetadataIn(status, "exports"), "exports/e1,exports/e2");
  EXPECT_TRUE(files_.Has("a.raw"));
}

TEST_F(ImageManagerTest, DeletionThatFailsLeavesTheImageActive) {
  ASSERT_TRUE(CreateImage("a").ok());
  files_.SetLocked("a.raw", true);
  EXPECT_EQ(ReasonIn(DeleteImage("images/a")), "IMAGE_LOCKED");
  EXPECT_EQ(domain_->images().Get("images/a")->state(), v1::Image::STATE_ACTIVE);
}

TEST_F(ImageManagerTest, ImportByCopyLeavesTheSource) {
  files_.Put("in/disk.img", {"", "content", false});
  const auto image = Import("a", "./in//disk.img", false);
  ASSERT_TRUE(image.ok()) << image.status();
  EXPECT_EQ(image->virtual_size_bytes(), 7u);
  EXPECT_EQ(files_.Get("a.raw").bytes, "content");
  EXPECT_TRUE(files_.Has("in/disk.img"));
}

TEST_F(ImageManagerTest, ImportByMoveTakesTheSource) {
  files_.Put("disk.img", {"", "content", false});
  ASSERT_TRUE(Import("a", "disk.img", true).ok());
  EXPECT_EQ(files_.Get("a.raw").bytes, "content");
  EXPECT_FALSE(files_.Has("disk.img"));
}

TEST_F(ImageManagerTest, ImportChecksTheDeclaredSizeFirst) {
  files_.Put("disk.img", {"", "content", false});
  EXPECT_THAT(ViolationsOf(Import("a", "disk.img", true, 8).status()),
              ElementsAre("image.virtual_size_bytes SIZE_MISMATCH"));
  EXPECT_TRUE(files_.Has("disk.img"));
  EXPECT_EQ(files_.count(), 1u);
}

TEST_F(ImageManagerTest, ImportOfAMissingFileNamesTheField) {
  const absl::Status status = Import("a", "disk.img", false).status();
  EXPECT_EQ(ReasonIn(status), "RESOURCE_NOT_FOUND");
  EXPECT_EQ(MetadataIn(status, "field"), "source_file");
}

TEST_F(ImageManagerTest, WhatIsWrongWithAnImportsFileNamesTheField) {
  files_.Put("empty.img", {"", "", false});
  files_.Put("locked.img", {"", "content", true});
  const absl::Status empty = Import("a", "empty.img", false).status();
  EXPECT_EQ(ReasonIn(empty), "SIZE_OUT_OF_RANGE");
  EXPECT_THAT(ViolationsOf(empty), ElementsAre("source_file SIZE_OUT_OF_RANGE"));
  const absl::Status locked = Import("a", "locked.img", false).status();
  EXPECT_EQ(ReasonIn(locked), "IMAGE_LOCKED");
  EXPECT_THAT(ViolationsOf(locked), ElementsAre("source_file IMAGE_LOCKED"));
  EXPECT_EQ(MetadataIn(locked, "image"), "(none)") << "the image does not exist";
  EXPECT_EQ(ReasonIn(domain_->images().Get("images/a").status()), "RESOURCE_NOT_FOUND");
}

TEST_F(ImageManagerTest, RepeatedImportIsToldAsARepeatedCreation) {
  files_.Put("disk.img", {"", "content", false});
  ASSERT_TRUE(Import("a", "disk.img", false).ok());
  EXPECT_EQ(ReasonIn(Import("a", "disk.img", false).status()), "RESOURCE_EXISTS");
  EXPECT_EQ(ReasonIn(Import("a", "disk.img", false, 7).status()), "RESOURCE_EXISTS");
  EXPECT_EQ(ReasonIn(Import("a", "disk.img", false, 8).status()), "RESOURCE_EXISTS_DIFFERENT");
}

TEST_F(ImageManagerTest, SizeIsToldWhileAnImportGoesOn) {
  files_.Put("disk.img", {"", "content", false});
  engine_->Hold("BuildImage");
  std::thread importer([&] { EXPECT_TRUE(Import("a", "disk.img", false).ok()); });
  engine_->AwaitCalls("BuildImage", 1);
  const auto image = domain_->images().Get("images/a");
  engine_->Release("BuildImage");
  importer.join();
  ASSERT_TRUE(image.ok()) << image.status();
  EXPECT_EQ(image->state(), v1::Image::STATE_CREATING);
  EXPECT_EQ(image->virtual_size_bytes(), 7u);
}

TEST_F(ImageManagerTest, ImportFromOutsideOfThePoolIsRefused) {
  for (const char* file : {"../disk.img", "/etc/passwd", "a/../../b", "", "./"}) {
    EXPECT_EQ(ReasonIn(Import("a", file, false).status()), "PATH_OUTSIDE_POOL") << file;
  }
}

TEST_F(ImageManagerTest, ImportDoesNotTakeTheFileOfAnImage) {
  ASSERT_TRUE(CreateImage("a").ok());
  for (const bool move : {false, true}) {
    EXPECT_EQ(ReasonIn(Import("b", "./a.raw", move).status()), "IMAGE_IN_USE");
  }
  EXPECT_TRUE(files_.Has("a.raw"));
}

TEST_F(ImageManagerTest, ListGoesOnWhereThePageEndedWhateverIsDeleted) {
  for (const char* id : {"a", "b", "c", "d", "e"}) ASSERT_TRUE(CreateImage(id).ok());
  v1::ListImagesRequest request;
  request.set_page_size(2);
  auto page = domain_->images().List(request);
  ASSERT_TRUE(page.ok());
  ASSERT_EQ(page->images_size(), 2);
  EXPECT_EQ(page->images(1).name(), "images/b");
  EXPECT_GT(page->revision(), 0u);
  ASSERT_TRUE(DeleteImage("images/b").ok());
  Restart();  // tokens outlive it
  request.set_page_token(page->next_page_token());
  page = domain_->images().List(request);
  ASSERT_TRUE(page.ok()) << page.status();
  EXPECT_EQ(page->images(0).name(), "images/c");
  request.set_page_token(page->next_page_token());
  page = domain_->images().List(request);
  ASSERT_EQ(page->images_size(), 1);
  EXPECT_EQ(page->images(0).name(), "images/e");
  EXPECT_EQ(page->next_page_token(), "");
}

TEST_F(ImageManagerTest, TokenOfAnotherListIsRefused) {
  for (const char* id : {"a", "b"}) ASSERT_TRUE(CreateImage(id).ok());
  v1::ListImagesRequest request;
  request.set_page_size(1);
  v1::ListExportsRequest other;
  other.set_page_token(domain_->images().List(request)->next_page_token());
  EXPECT_THAT(ViolationsOf(domain_->exports().List(other).status()),
              ElementsAre("page_token PAGE_TOKEN_INVALID"));
}

TEST_F(ImageManagerTest, OfManyCreatorsOfOneNameOneWins) {
  constexpr int kThreads = 8;
  std::vector<absl::Status> results(kThreads);
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] { results[i] = CreateImage("a", 4096).status(); });
  }
  for (std::thread& thread : threads) thread.join();
  int created = 0;
  for (const absl::Status& status : results) {
    created += status.ok() ? 1 : 0;
    if (!status.ok()) {
      EXPECT_EQ(ReasonIn(status), "RESOURCE_EXISTS");
    }
  }
  EXPECT_EQ(created, 1);
  EXPECT_EQ(files_.count(), 1u);
}

}  // namespace
}  // namespace gabion::service
