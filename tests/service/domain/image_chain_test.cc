// Images that stand on others.
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "service/domain/watcher.h"
#include "tests/service/domain/fixture.h"
#include "tests/service/violations_of.h"

namespace gabion::service {
namespace {

using google::longrunning::Operation;
using testing::ElementsAre;
using testing::IsEmpty;

class ImageChainTest : public DomainFixture {
 protected:
  v1::Image Get(const std::string& name) {
    auto image = domain_->images().Get(name);
    EXPECT_TRUE(image.ok()) << image.status();
    return image.value_or(v1::Image());
  }
  std::vector<std::string> DependentsOf(const std::string& name) {
    const v1::Image image = Get(name);
    return {image.dependents().begin(), image.dependents().end()};
  }
  v1::CreateImageRequest OnTop(const std::string& id, const std::string& backing) {
    v1::CreateImageRequest request;
    request.set_image_id(id);
    request.mutable_image()->mutable_qcow2();
    request.mutable_image()->set_backing_image(backing);
    return request;
  }
  absl::StatusOr<v1::Image> Create(const v1::CreateImageRequest& request, Call call = {}) {
    return Result<v1::Image>(domain_->images().Create(request, call));
  }
  absl::StatusOr<v1::Image> Resize(const std::string& name, uint64_t size, bool shrink = false) {
    v1::ResizeImageRequest request;
    request.set_name(name);
    request.set_virtual_size_bytes(size);
    request.set_allow_shrink(shrink);
    return Result<v1::Image>(domain_->images().Resize(request, Call()));
  }
  absl::StatusOr<v1::Image> Grow(const std::string& name, uint64_t size) {
    v1::Image image;
    image.set_name(name);
    image.set_virtual_size_bytes(size);
    return UpdateImage(image, "virtual_size_bytes");
  }
  absl::Status Write(const std::string& name) {
    v1::WriteRequest request;
    request.set_name(name);
    request.set_data("x");
    return domain_->inspector().Write(request, Call()).status();
  }
  absl::Status Bury(const std::string& name, int64_t retention = 0) {
    v1::DeleteImageRequest request;
    request.set_name(name);
    request.set_mode(v1::DeleteImageRequest::MODE_TOMBSTONE);
    request.mutable_retention()->set_seconds(retention);
    return Result<google::protobuf::Empty>(domain_->images().Delete(request, Call())).status();
  }
  static void ReadOnly(v1::Export* exported) { exported->set_read_only(true); }
  // It is removed in the background.
  void AwaitGone(const std::string& name) {
    while (domain_->images().Get(name).ok()) std::this_thread::yield();
  }
};

TEST_F(ImageChainTest, ACloneHasTheSizeOfItsSourceAndTheDefaultsOfItsFormat) {
  ASSERT_TRUE(CreateImage("a", 4000).ok());
  const auto clone = Clone("b", "images/a");
  ASSERT_TRUE(clone.ok()) << clone.status();
  EXPECT_EQ(clone->state(), v1::Image::STATE_ACTIVE);
  EXPECT_EQ(clone->virtual_size_bytes(), 4000u);
  EXPECT_EQ(clone->backing_image(), "images/a");
  EXPECT_EQ(clone->pool(), "pools/default");
  EXPECT_EQ(clone->chain_depth(), 2u);
  EXPECT_EQ(clone->qcow2().cluster_size_bytes(), 65536u);
  EXPECT_EQ(clone->qcow2().version(), 3u);
  EXPECT_EQ(files_.Get("b.qcow2").qcow2.backing_file, "a.raw");
  EXPECT_EQ(files_.Get("b.qcow2").uid, clone->uid());
  EXPECT_THAT(DependentsOf("images/a"), ElementsAre("images/b"));
  EXPECT_EQ(Get("images/a").chain_depth(), 1u);
}

TEST_F(ImageChainTest, ACloneHasWhatIsAskedFor) {
  ASSERT_TRUE(CreateQcow2("a", 4000).ok());
  v1::CloneImageRequest request;
  request.set_image_id("b");
  request.set_source("images/a");
  request.set_virtual_size_bytes(9000);
  (*request.mutable_labels())["k"] = "v";
  request.mutable_qcow2()->set_cluster_size_bytes(4096);
  const auto clone = Result<v1::Image>(domain_->images().Clone(request, Call()));
  ASSERT_TRUE(clone.ok()) << clone.status();
  EXPECT_EQ(clone->virtual_size_bytes(), 9000u);
  EXPECT_EQ(clone->labels().at("k"), "v");
  EXPECT_EQ(clone->qcow2().cluster_size_bytes(), 4096u);
  EXPECT_EQ(files_.Get("b.qcow2").qcow2.layout.cluster_bits, 12u);
}

TEST_F(ImageChainTest, ACreationWithABackingImageIsTheSameAsAClone) {
  ASSERT_TRUE(CreateImage("a", 4000).ok());
  const auto made = Create(OnTop("b", "images/a"));
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_EQ(made->virtual_size_bytes(), 4000u);
  EXPECT_EQ(ReasonIn(Clone("b", "images/a").status()), "RESOURCE_EXISTS");
  ASSERT_TRUE(CreateImage("c", 4000).ok());
  const absl::Status different = Clone("b", "images/c").status();
  EXPECT_EQ(ReasonIn(different), "RESOURCE_EXISTS_DIFFERENT");
  EXPECT_EQ(MetadataIn(different, "differing-fields"), "backing_image");
}

TEST_F(ImageChainTest, OnlyAQcow2ImageOfTheSamePoolStandsOnAnotherOne) {
  ASSERT_TRUE(CreateImage("a").ok());
  v1::CreateImageRequest raw = OnTop("b", "images/a");
  raw.mutable_image()->mutable_raw();
  EXPECT_THAT(ViolationsOf(Create(raw).status()), ElementsAre("image.backing_image FIELD_INVALID"));
  EXPECT_THAT(ViolationsOf(Create(OnTop("b", "images/b")).status()),
              ElementsAre("image.backing_image FIELD_INVALID"));
  const absl::Status missing = Create(OnTop("b", "images/none")).status();
  EXPECT_EQ(ReasonIn(missing), "RESOURCE_NOT_FOUND");
  EXPECT_EQ(MetadataIn(missing, "field"), "image.backing_image");
  Stop();
  adjust_ = [](DomainOptions* options) { options->pools.push_back({"pools/other", "/other"}); };
  Start();
  v1::CreateImageRequest other = OnTop("b", "images/a");
  other.mutable_image()->set_pool("pools/other");
  EXPECT_THAT(ViolationsOf(Create(other).status()),
              ElementsAre("image.backing_image FIELD_INVALID"));
  EXPECT_THAT(DependentsOf("images/a"), IsEmpty());
}

TEST_F(ImageChainTest, ErrorsOfACloneNameItsOwnFields) {
  const absl::Status missing = Clone("b", "images/none").status();
  EXPECT_EQ(ReasonIn(missing), "RESOURCE_NOT_FOUND");
  EXPECT_EQ(MetadataIn(missing, "field"), "source");
  ASSERT_TRUE(CreateQcow2("b").ok());
  ASSERT_TRUE(Bury("images/b", 3600).ok());
  const absl::Status buried = Clone("c", "images/b").status();
  EXPECT_EQ(ReasonIn(buried), "IMAGE_DELETED");
  EXPECT_THAT(ViolationsOf(buried), ElementsAre("source IMAGE_DELETED"));
  EXPECT_EQ(MetadataIn(buried, "field"), "source");
  ASSERT_TRUE(CreateImage("a").ok());
  files_.SetMaxSize(5000);
  v1::CloneImageRequest large;
  large.set_image_id("d");
  large.set_source("images/a");
  large.set_virtual_size_bytes(6000);
  EXPECT_THAT(ViolationsOf(domain_->images().Clone(large, Call()).status()),
              ElementsAre("virtual_size_bytes SIZE_OUT_OF_RANGE"));
}

TEST_F(ImageChainTest, AnImageThatIsBeingMadeIsNotStoodOn) {
  engine_->Hold("BuildImage");
  std::thread creation([this] { EXPECT_TRUE(CreateQcow2("a", 512).ok()); });
  engine_->AwaitCalls("BuildImage", 1);
  EXPECT_EQ(ReasonIn(Clone("b", "images/a").status()), "IMAGE_NOT_ACTIVE");
  engine_->Release("BuildImage");
  creation.join();
  EXPECT_TRUE(Clone("b", "images/a").ok());
}

TEST_F(ImageChainTest, AChainHasAtMost64Images) {
  ASSERT_TRUE(CreateImage("i1", 512).ok());
  for (int i = 2; i <= 64; ++i) {
    const auto made = Clone("i" + std::to_string(i), "images/i" + std::to_string(i - 1));
    ASSERT_TRUE(made.ok()) << i << ": " << made.status();
    EXPECT_EQ(made->chain_depth(), static_cast<uint32_t>(i));
  }
  const absl::Status deep = Clone("more", "images/i64").status();
  EXPECT_EQ(ReasonIn(deep), "CHAIN_TOO_DEEP");
  EXPECT_EQ(MetadataIn(deep, "image"), "images/i64");
  EXPECT_TRUE(Clone("beside", "images/i63").ok());
}

TEST_F(ImageChainTest, DependentsAreToldInListsAndAfterARestart) {
  ASSERT_TRUE(CreateImage("a").ok());
  ASSERT_TRUE(Clone("c", "images/a").ok());
  ASSERT_TRUE(Clone("b", "images/a").ok());
  ASSERT_TRUE(CreateExport("e", "images/a", ReadOnly).ok());
  for (int round = 0; round < 2; ++round) {
    EXPECT_THAT(DependentsOf("images/a"), ElementsAre("exports/e", "images/b", "images/c"));
    const auto listed = domain_->images().List({});
    ASSERT_TRUE(listed.ok() && listed->images_size() == 3);
    EXPECT_THAT(listed->images(0).dependents(), ElementsAre("exports/e", "images/b", "images/c"));
    EXPECT_EQ(listed->images(2).chain_depth(), 2u);
    Restart();
  }
}

TEST_F(ImageChainTest, AWatchTellsTheBackingImageWhenAChildComesAndGoes) {
  ASSERT_TRUE(CreateImage("a").ok());
  v1::WatchRequest request;
  request.add_collections("images");
  request.set_after_revision(*store_.Revision());
  auto watch = Watch::Start(store_, domain_->views(), request);
  ASSERT_TRUE(watch.ok()) << watch.status();
  const auto told = [&] {  // of images/a, last
    std::vector<std::string> dependents = {"(not told)"};
    for (;;) {
      const auto message = (*watch)->Next();
      EXPECT_TRUE(message.ok()) << message.status();
      if (!message.ok() || (!message->has_value() && (*watch)->caught_up())) return dependents;
      if (!message->has_value() || (*message)->name() != "images/a") continue;
      const v1::Image& image = (*message)->image();
      dependents = {image.dependents().begin(), image.dependents().end()};
    }
  };
  ASSERT_TRUE(Clone("b", "images/a").ok());
  EXPECT_THAT(told(), ElementsAre("images/b"));
  ASSERT_TRUE(DeleteImage("images/b").ok());
  EXPECT_THAT(told(), IsEmpty());
}

// Whoever learns of the end of a child from the store finds the parent free of it.
TEST_F(ImageChainTest, WhenTheRowOfAChildGoesItIsNotToldAnyMore) {
  ASSERT_TRUE(CreateImage("a").ok());
  ASSERT_TRUE(Clone("b", "images/a").ok());
  std::vector<std::string> told = {"(not told)"};
  store_.SetAnswerGate([this, &told] {
    if (!kept_->Get("images", "images/b").ok() && told.size() == 1 && told[0] == "(not told)") {
      told = DependentsOf("images/a");
    }
    return absl::OkStatus();
  });
  ASSERT_TRUE(DeleteImage("images/b").ok());
  store_.SetAnswerGate(nullptr);
  EXPECT_THAT(told, IsEmpty());
}

TEST_F(ImageChainTest, WhatOthersStandOnIsNotDeleted) {
  ASSERT_TRUE(CreateImage("a").ok());
  ASSERT_TRUE(Clone("c", "images/a").ok());
  ASSERT_TRUE(Clone("b", "images/a").ok());
  const absl::Status refused = DeleteImage("images/a");
  EXPECT_EQ(ReasonIn(refused), "IMAGE_HAS_DEPENDENTS");
  EXPECT_EQ(MetadataIn(refused, "dependents"), "images/b,images/c");
  Restart();
  EXPECT_EQ(ReasonIn(DeleteImage("images/a")), "IMAGE_HAS_DEPENDENTS");
  ASSERT_TRUE(DeleteImage("images/b").ok());
  EXPECT_EQ(MetadataIn(DeleteImage("images/a"), "dependents"), "images/c");
  ASSERT_TRUE(DeleteImage("images/c").ok());
  EXPECT_TRUE(DeleteImage("images/a").ok());
  EXPECT_EQ(files_.count(), 0u);
}

TEST_F(ImageChainTest, ATombstoneStaysUntilItsLastChildIsGone) {
  ASSERT_TRUE(CreateImage("a").ok());
  ASSERT_TRUE(Clone("b", "images/a").ok());
  ASSERT_TRUE(Clone("c", "images/a").ok());
  ASSERT_TRUE(Bury("images/a").ok());
  EXPECT_EQ(ReasonIn(Clone("d", "images/a").status()), "IMAGE_DELETED");
  ASSERT_TRUE(DeleteImage("images/b").ok());
  EXPECT_TRUE(Get("images/a").has_delete_time());
  EXPECT_TRUE(files_.Has("a.raw"));
  Restart();
  EXPECT_TRUE(Get("images/a").has_delete_time());
  ASSERT_TRUE(DeleteImage("images/c").ok());
  AwaitGone("images/a");
  AwaitOperations();
  EXPECT_EQ(files_.count(), 0u);
}

TEST_F(ImageChainTest, ARowOfTombstonesIsRemovedFromTheTop) {
  ASSERT_TRUE(CreateImage("a").ok());
  ASSERT_TRUE(Clone("b", "images/a").ok());
  ASSERT_TRUE(Clone("c", "images/b").ok());
  ASSERT_TRUE(Bury("images/a").ok());
  ASSERT_TRUE(Bury("images/b").ok());
  EXPECT_TRUE(files_.Has("a.raw") && files_.Has("b.qcow2"));
  ASSERT_TRUE(Bury("images/c").ok());
  AwaitGone("images/a");
  AwaitOperations();
  EXPECT_EQ(files_.count(), 0u);
}

TEST_F(ImageChainTest, ACreationThatFailsLetsGoOfItsBackingImage) {
  ASSERT_TRUE(CreateImage("a").ok());
  engine_->FailNext("BuildImage", absl::ResourceExhaustedError("no space"));
  EXPECT_FALSE(Clone("b", "images/a").ok());
  EXPECT_THAT(DependentsOf("images/a"), IsEmpty());
  store_.SetGate([] { return absl::UnavailableError("The store is away."); });
  EXPECT_FALSE(Clone("b", "images/a").ok());
  store_.SetGate(nullptr);
  EXPECT_THAT(DependentsOf("images/a"), IsEmpty());
  EXPECT_TRUE(DeleteImage("images/a").ok());
}

// The commit that begins it is made, and its answer is lost: the creation goes on by itself.
TEST_F(ImageChainTest, ACreationOfWhichNobodyHeardStandsOnItsBackingImage) {
  ASSERT_TRUE(CreateImage("a").ok());
  bool lost = false;
  store_.SetAnswerGate([&lost]() -> absl::Status {
    if (std::exchange(lost, true)) return absl::OkStatus();
    return absl::UnavailableError("The answer is lost.");
  });
  EXPECT_FALSE(Clone("b", "images/a").ok());
  store_.SetAnswerGate(nullptr);
  AwaitOperations();
  EXPECT_THAT(DependentsOf("images/a"), ElementsAre("images/b"));
  EXPECT_EQ(ReasonIn(DeleteImage("images/a")), "IMAGE_HAS_DEPENDENTS");
}

TEST_F(ImageChainTest, WhatOthersStandOnIsNotChanged) {
  ASSERT_TRUE(CreateImage("a").ok());
  ASSERT_TRUE(CreateExport("e", "images/a", ReadOnly).ok());
  ASSERT_TRUE(Clone("b", "images/a").ok());
  EXPECT_EQ(ReasonIn(Grow("images/a", 8192).status()), "IMAGE_HAS_DEPENDENTS");
  EXPECT_EQ(ReasonIn(Resize("images/a", 8192).status()), "IMAGE_HAS_DEPENDENTS");
  EXPECT_EQ(ReasonIn(Resize("images/a", 512, true).status()), "IMAGE_HAS_DEPENDENTS");
  EXPECT_EQ(ReasonIn(Write("images/a")), "IMAGE_HAS_DEPENDENTS");
  EXPECT_EQ(ReasonIn(CreateExport("f", "images/a").status()), "IMAGE_HAS_DEPENDENTS");
  v1::Export writable = GetExport("exports/e");
  writable.set_read_only(false);
  const absl::Status refused = UpdateExport(writable, {"read_only"}).status();
  EXPECT_EQ(ReasonIn(refused), "IMAGE_HAS_DEPENDENTS");
  EXPECT_EQ(MetadataIn(refused, "dependents"), "images/b");
  EXPECT_TRUE(GetExport("exports/e").read_only());
  v1::Image labelled;
  labelled.set_name("images/a");
  (*labelled.mutable_labels())["k"] = "v";
  EXPECT_TRUE(UpdateImage(labelled, "labels").ok());
  EXPECT_TRUE(CreateExport("g", "images/a", ReadOnly).ok());
  EXPECT_TRUE(CreateExport("h", "images/b").ok());
}

TEST_F(ImageChainTest, WhatIsServedForWritingIsNotCloned) {
  ASSERT_TRUE(CreateImage("a").ok());
  ASSERT_TRUE(CreateExport("e", "images/a").ok());
  ASSERT_TRUE(CreateExport("r", "images/a", ReadOnly).ok());
  const absl::Status refused = Clone("b", "images/a").status();
  EXPECT_EQ(ReasonIn(refused), "IMAGE_IN_USE");
  EXPECT_EQ(MetadataIn(refused, "exports"), "exports/e");
  v1::Export exported = GetExport("exports/e");
  exported.set_read_only(true);
  ASSERT_TRUE(UpdateExport(exported, {"read_only"}).ok());
  EXPECT_TRUE(Clone("b", "images/a").ok());
}

// A change to read-only whose end could not be written may yet be taken back.
TEST_F(ImageChainTest, AnExportThatMayBecomeWritableAgainCountsAsOneThatIs) {
  adjust_ = [](DomainOptions* options) {
    options->exports.reconciler = {std::chrono::hours(1), std::chrono::hours(1)};
  };
  Restart();
  ASSERT_TRUE(CreateImage("a").ok());
  ASSERT_TRUE(CreateExport("e", "images/a").ok());
  v1::Export exported = GetExport("exports/e");
  exported.set_read_only(true);
  int commits = 0;
  store_.SetGate([&commits]() -> absl::Status {
    return commits++ == 1 ? absl::UnavailableError("The store is away.") : absl::OkStatus();
  });
  EXPECT_FALSE(UpdateExport(exported, {"read_only"}).ok());
  store_.SetGate(nullptr);
  EXPECT_EQ(ReasonIn(Clone("b", "images/a").status()), "IMAGE_IN_USE");
  ASSERT_TRUE(UpdateExport(exported, {"read_only"}).ok());
  EXPECT_TRUE(Clone("b", "images/a").ok());
}

TEST_F(ImageChainTest, AnExportThatCouldNotBeTakenBackDoesNotComeBackOverAClone) {
  adjust_ = [](DomainOptions* options) {
    options->exports.reconciler = {std::chrono::hours(1), std::chrono::hours(1)};
  };
  Restart();
  ASSERT_TRUE(CreateImage("a").ok());
  engine_->FailNext("CreateExport", absl::UnavailableError("not now"));
  int commits = 0;
  store_.SetGate([&commits]() -> absl::Status {
    return commits++ == 1 ? absl::UnavailableError("The store is away.") : absl::OkStatus();
  });
  EXPECT_FALSE(CreateExport("e", "images/a").ok());
  store_.SetGate(nullptr);
  ASSERT_TRUE(Clone("b", "images/a").ok());
  Restart();
  EXPECT_EQ(ReasonIn(domain_->exports().Get("exports/e").status()), "RESOURCE_NOT_FOUND");
  EXPECT_FALSE(engine_->Serves("exports/e"));
  EXPECT_THAT(DependentsOf("images/a"), ElementsAre("images/b"));
}

// Each of both decides under the lock of the image: whatever the order, one of them is refused.
TEST_F(ImageChainTest, OfACloneAndAWritableExportAtTheSameTimeOneIsRefused) {
  for (int round = 0; round < 100; ++round) {
    const std::string id = "a" + std::to_string(round);
    const std::string name = "images/" + id;
    ASSERT_TRUE(CreateQcow2(id, 512).ok());
    absl::Status exported;
    std::thread beside([&] { exported = CreateExport("e-" + id, name).status(); });
    const absl::Status cloned = Clone("b-" + id, name).status();
    beside.join();
    EXPECT_NE(cloned.ok(), exported.ok()) << cloned << " " << exported;
    EXPECT_EQ(ReasonIn(cloned.ok() ? exported : cloned),
              cloned.ok() ? "IMAGE_HAS_DEPENDENTS" : "IMAGE_IN_USE");
  }
}

TEST_F(ImageChainTest, OfACloneAndTheDeletionOfItsSourceAtTheSameTimeOneIsRefused) {
  for (int round = 0; round < 100; ++round) {
    const std::string id = "a" + std::to_string(round);
    ASSERT_TRUE(CreateQcow2(id, 512).ok());
    absl::Status deleted;
    std::thread beside([&] { deleted = DeleteImage("images/" + id); });
    const absl::Status cloned = Clone("b-" + id, "images/" + id).status();
    beside.join();
    EXPECT_NE(cloned.ok(), deleted.ok()) << cloned << " " << deleted;
  }
}

// Between its look and its bytes nobody begins to stand on the image.
TEST_F(ImageChainTest, ACloneWaitsForAWriteThatIsUnderWay) {
  ASSERT_TRUE(CreateImage("a").ok());
  engine_->Hold("Write");
  std::thread writer([this] { EXPECT_TRUE(Write("images/a").ok()); });
  engine_->AwaitCalls("Write", 1);
  Call impatient;
  impatient.patience.until = Patience::Clock::now();
  EXPECT_EQ(ReasonIn(Create(OnTop("b", "images/a"), impatient).status()), "OPERATION_IN_PROGRESS");
  engine_->Release("Write");
  writer.join();
  EXPECT_TRUE(Clone("b", "images/a").ok());
}

TEST_F(ImageChainTest, ADryRunOfACloneTellsWhatItWouldBeAndLeavesNothing) {
  ASSERT_TRUE(CreateImage("a", 4000).ok());
  v1::CloneImageRequest request;
  request.set_image_id("b");
  request.set_source("images/a");
  Call dry;
  dry.validate_only = true;
  const auto told = Result<v1::Image>(domain_->images().Clone(request, dry));
  ASSERT_TRUE(told.ok()) << told.status();
  EXPECT_EQ(told->virtual_size_bytes(), 4000u);
  EXPECT_EQ(told->chain_depth(), 2u);
  EXPECT_THAT(DependentsOf("images/a"), IsEmpty());
  EXPECT_EQ(files_.count(), 1u);
  EXPECT_TRUE(DeleteImage("images/a").ok());
}

}  // namespace
}  // namespace gabion::service
