// Changing the size of images, checking them, and measuring what they would need.
#include <gtest/gtest.h>

#include <future>
#include <string>
#include <thread>

#include "engine/base/reason.h"
#include "tests/service/domain/fixture.h"
#include "tests/service/violations_of.h"

namespace gabion::service {
namespace {

using google::longrunning::Operation;
using testing::ElementsAre;

class ImageCareTest : public DomainFixture {
 protected:
  using Repair = v1::CheckImageRequest;

  v1::Image Get(const std::string& name) {
    auto image = domain_->images().Get(name);
    EXPECT_TRUE(image.ok()) << image.status();
    return image.value_or(v1::Image());
  }
  absl::StatusOr<v1::Image> Resize(const std::string& name, uint64_t size, bool shrink = false,
                                   const Call& call = {}) {
    v1::ResizeImageRequest request;
    request.set_name(name);
    request.set_virtual_size_bytes(size);
    request.set_allow_shrink(shrink);
    return Result<v1::Image>(domain_->images().Resize(request, call));
  }
  absl::StatusOr<Operation> Check(const std::string& name,
                                  Repair::Repair repair = Repair::REPAIR_NONE,
                                  const Call& call = {}) {
    v1::CheckImageRequest request;
    request.set_name(name);
    request.set_repair(repair);
    return domain_->images().Check(request, call);
  }
  absl::StatusOr<v1::CheckImageResponse> ResultOf(const absl::StatusOr<Operation>& check) {
    if (!check.ok()) return check.status();
    return Result<v1::CheckImageResponse>(Ended(*check));
  }
  Operation Ended(const Operation& operation) {
    if (operation.name().empty()) return operation;
    std::promise<void> done;
    domain_->operations().WhenDone(operation.name(), [&done] { done.set_value(); });
    done.get_future().wait();
    return *domain_->operations().Get(operation.name());
  }
  static v1::JobMetadata MetadataOf(const Operation& operation) {
    v1::JobMetadata metadata;
    EXPECT_TRUE(operation.metadata().UnpackTo(&metadata));
    return metadata;
  }
  static engine::CheckReport ThreeLeaks() {
    engine::CheckReport report;
    report.leaks = 3;
    report.total_clusters = 10;
    report.allocated_clusters = 4;
    report.image_end_offset = 1 << 20;
    report.findings.push_back({"leak", 65536, std::nullopt, "A cluster is not used."});
    report.findings_left_out = 2;
    return report;
  }
  static void ReadOnly(v1::Export* exported) { exported->set_read_only(true); }
  static Call DryRun() {
    Call call;
    call.validate_only = true;
    return call;
  }
  v1::MeasureImageRequest MeasureOf(uint64_t size) {
    v1::MeasureImageRequest request;
    request.mutable_image()->mutable_qcow2();
    request.mutable_image()->set_virtual_size_bytes(size);
    return request;
  }
};

TEST_F(ImageCareTest, ResizingMakesAnImageLarger) {
  ASSERT_TRUE(CreateImage("a", 1000).ok());
  ASSERT_TRUE(CreateExport("e", "images/a").ok());
  const auto grown = Resize("images/a", 3000);
  ASSERT_TRUE(grown.ok()) << grown.status();
  EXPECT_EQ(grown->virtual_size_bytes(), 3000u);
  EXPECT_EQ(grown->generation(), 2u);
  EXPECT_EQ(grown->observed_generation(), 2u);
  EXPECT_TRUE(grown->operation().empty());
  EXPECT_EQ(files_.Get("a.raw").bytes.size(), 3000u);
  EXPECT_EQ(Get("images/a").DebugString(), grown->DebugString());
}

TEST_F(ImageCareTest, ResizingMakesAnImageSmallerOnlyIfThatIsSaid) {
  ASSERT_TRUE(CreateQcow2("a", 4000).ok());
  const absl::Status refused = Resize("images/a", 1000).status();
  EXPECT_EQ(ReasonIn(refused), "SHRINK_NOT_ALLOWED");
  EXPECT_THAT(ViolationsOf(refused), ElementsAre("virtual_size_bytes SHRINK_NOT_ALLOWED"));
  EXPECT_EQ(Get("images/a").virtual_size_bytes(), 4000u);
  const auto shrunk = Resize("images/a", 1000, true);
  ASSERT_TRUE(shrunk.ok()) << shrunk.status();
  EXPECT_EQ(shrunk->virtual_size_bytes(), 1000u);
  EXPECT_EQ(files_.Get("a.qcow2").bytes.size(), 1000u);
}

TEST_F(ImageCareTest, WhatIsServedIsNotMadeSmaller) {
  ASSERT_TRUE(CreateQcow2("a", 4000).ok());
  ASSERT_TRUE(CreateExport("e", "images/a", ReadOnly).ok());
  const absl::Status refused = Resize("images/a", 1000, true).status();
  EXPECT_EQ(ReasonIn(refused), "IMAGE_IN_USE");
  EXPECT_EQ(MetadataIn(refused, "exports"), "exports/e");
}

TEST_F(ImageCareTest, WhatIsBeingMadeSmallerIsNeitherServedNorWrittenNorStoodOn) {
  ASSERT_TRUE(CreateQcow2("a", 4000).ok());
  engine_->Hold("ShrinkImage");
  std::thread resize([this] { EXPECT_TRUE(Resize("images/a", 1000, true).ok()); });
  engine_->AwaitCalls("ShrinkImage", 1);
  const absl::Status refused = CreateExport("e", "images/a").status();
  EXPECT_EQ(ReasonIn(refused), "OPERATION_IN_PROGRESS");
  EXPECT_EQ(MetadataIn(refused, "operation"), Get("images/a").operation());
  EXPECT_EQ(ReasonIn(CreateExport("e", "images/a", ReadOnly).status()), "OPERATION_IN_PROGRESS");
  EXPECT_EQ(ReasonIn(Clone("b", "images/a").status()), "OPERATION_IN_PROGRESS");
  EXPECT_EQ(ReasonIn(DeleteImage("images/a")), "OPERATION_IN_PROGRESS");
  EXPECT_EQ(ReasonIn(Check("images/a").status()), "OPERATION_IN_PROGRESS");
  EXPECT_EQ(ReasonIn(Resize("images/a", 2000).status()), "OPERATION_IN_PROGRESS");
  v1::WriteRequest write;
  write.set_name("images/a");
  write.set_data("x");
  EXPECT_EQ(ReasonIn(domain_->inspector().Write(write, Call()).status()), "OPERATION_IN_PROGRESS");
  engine_->Release("ShrinkImage");
  resize.join();
  EXPECT_TRUE(CreateExport("e", "images/a").ok());
}

TEST_F(ImageCareTest, TheSizeThatItHasChangesNothing) {
  ASSERT_TRUE(CreateImage("a", 1000).ok());
  const v1::Image before = Get("images/a");
  const auto same = Resize("images/a", 1000);
  ASSERT_TRUE(same.ok()) << same.status();
  EXPECT_EQ(same->DebugString(), before.DebugString());
  EXPECT_EQ(Get("images/a").DebugString(), before.DebugString());
  EXPECT_EQ(engine_->calls("GrowImage"), 0);
}

TEST_F(ImageCareTest, AResizeThatFailsLeavesTheImageAsItWas) {
  ASSERT_TRUE(CreateImage("a", 1000).ok());
  engine_->FailNext("GrowImage", absl::ResourceExhaustedError("no space"));
  EXPECT_EQ(ReasonIn(Resize("images/a", 3000).status()), "POOL_FULL");
  EXPECT_EQ(Get("images/a").virtual_size_bytes(), 1000u);
  EXPECT_EQ(Get("images/a").generation(), 1u);
  EXPECT_TRUE(Get("images/a").operation().empty());
  files_.SetMaxSize(2000);
  EXPECT_THAT(ViolationsOf(Resize("images/a", 3000).status()),
              ElementsAre("virtual_size_bytes SIZE_OUT_OF_RANGE"));
}

TEST_F(ImageCareTest, ResizingWantsTheEtagThatThereIs) {
  ASSERT_TRUE(CreateImage("a", 1000).ok());
  v1::ResizeImageRequest request;
  request.set_name("images/a");
  request.set_virtual_size_bytes(2000);
  request.set_etag("\"0\"");
  EXPECT_EQ(ReasonIn(domain_->images().Resize(request, Call()).status()), "ETAG_MISMATCH");
  request.set_etag(Get("images/a").etag());
  EXPECT_TRUE(domain_->images().Resize(request, Call()).ok());
}

TEST_F(ImageCareTest, WhatIsNotThereIsNotResized) {
  ASSERT_TRUE(CreateImage("a", 1000).ok());
  files_.Remove("a.raw");
  EXPECT_EQ(ReasonIn(Resize("images/a", 2000).status()), "IMAGE_FILE_MISSING");
  EXPECT_EQ(ReasonIn(Resize("images/none", 2000).status()), "RESOURCE_NOT_FOUND");
}

TEST_F(ImageCareTest, ADryRunOfAResizeTellsTheNewSizeAndLeavesNothing) {
  ASSERT_TRUE(CreateQcow2("a", 1000).ok());
  for (const uint64_t size : {500, 2000}) {
    const auto told = Resize("images/a", size, true, DryRun());
    ASSERT_TRUE(told.ok()) << told.status();
    EXPECT_EQ(told->virtual_size_bytes(), size);
    EXPECT_EQ(told->generation(), 2u);
  }
  EXPECT_EQ(Get("images/a").virtual_size_bytes(), 1000u);
  EXPECT_EQ(Get("images/a").generation(), 1u);
  EXPECT_EQ(ReasonIn(Resize("images/a", 500, false, DryRun()).status()), "SHRINK_NOT_ALLOWED");
}

TEST_F(ImageCareTest, ACheckTellsWhatItFinds) {
  ASSERT_TRUE(CreateQcow2("a").ok());
  engine_->SetReport(ThreeLeaks());
  const auto found = ResultOf(Check("images/a"));
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->leaks(), 3u);
  EXPECT_EQ(found->leaks_fixed(), 0u);
  EXPECT_EQ(found->total_clusters(), 10u);
  EXPECT_EQ(found->allocated_clusters(), 4u);
  EXPECT_EQ(found->image_end_offset(), uint64_t{1} << 20);
  ASSERT_EQ(found->findings_size(), 1);
  EXPECT_EQ(found->findings(0).kind(), "leak");
  EXPECT_EQ(found->findings(0).host_offset(), 65536u);
  EXPECT_FALSE(found->findings(0).has_guest_offset());
  EXPECT_EQ(found->findings_left_out(), 2u);
  EXPECT_EQ(Get("images/a").generation(), 1u);
  EXPECT_TRUE(Get("images/a").operation().empty());
  const auto repaired = ResultOf(Check("images/a", Repair::REPAIR_LEAKS));
  ASSERT_TRUE(repaired.ok()) << repaired.status();
  EXPECT_EQ(repaired->leaks(), 0u);
  EXPECT_EQ(repaired->leaks_fixed(), 3u);
}

// What stands in a damaged file can be any bytes.
TEST_F(ImageCareTest, FindingsAreTextWhateverTheFileHolds) {
  ASSERT_TRUE(CreateQcow2("a").ok());
  engine::CheckReport report = ThreeLeaks();
  report.findings[0].text = "The bitmap \xff\xfe\x01 is damaged." + std::string(2000, 'x');
  engine_->SetReport(report);
  const auto found = ResultOf(Check("images/a"));
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_TRUE(found->findings(0).text().starts_with("The bitmap ??? is damaged.xxx"));
  EXPECT_EQ(found->findings(0).text().size(), 512u);
}

TEST_F(ImageCareTest, ARawImageHasNothingToCheck) {
  ASSERT_TRUE(CreateImage("a").ok());
  const absl::Status refused = Check("images/a").status();
  EXPECT_EQ(ReasonIn(refused), "FEATURE_UNSUPPORTED");
  EXPECT_EQ(MetadataIn(refused, "feature"), "check");
  EXPECT_EQ(ReasonIn(Check("images/none").status()), "RESOURCE_NOT_FOUND");
}

TEST_F(ImageCareTest, WhatIsServedIsCheckedOnlyIfNobodyWritesAndNotRepaired) {
  ASSERT_TRUE(CreateQcow2("a").ok());
  ASSERT_TRUE(CreateExport("e", "images/a", ReadOnly).ok());
  EXPECT_TRUE(ResultOf(Check("images/a")).ok());
  EXPECT_EQ(ReasonIn(Check("images/a", Repair::REPAIR_ALL).status()), "IMAGE_IN_USE");
  ASSERT_TRUE(CreateExport("f", "images/a").ok());
  const absl::Status written = Check("images/a").status();
  EXPECT_EQ(ReasonIn(written), "IMAGE_IN_USE");
  EXPECT_EQ(MetadataIn(written, "exports"), "exports/f");
}

TEST_F(ImageCareTest, WhatIsServedThroughAnotherImageIsCheckedAndNotRepaired) {
  ASSERT_TRUE(CreateQcow2("a").ok());
  ASSERT_TRUE(Clone("b", "images/a").ok());
  ASSERT_TRUE(Clone("c", "images/b").ok());
  EXPECT_TRUE(ResultOf(Check("images/a", Repair::REPAIR_ALL)).ok()) << "nothing is in use";
  ASSERT_TRUE(CreateExport("e", "images/c").ok());
  EXPECT_TRUE(ResultOf(Check("images/a")).ok());
  const absl::Status refused = Check("images/a", Repair::REPAIR_LEAKS).status();
  EXPECT_EQ(ReasonIn(refused), "IMAGE_HAS_DEPENDENTS");
  EXPECT_EQ(MetadataIn(refused, "dependents"), "images/c");
}

TEST_F(ImageCareTest, ACheckGoesOnInTheBackgroundAndTellsHowFarItIs) {
  ASSERT_TRUE(CreateQcow2("a").ok());
  engine_->HoldChecks();
  const auto begun = Check("images/a");
  ASSERT_TRUE(begun.ok()) << begun.status();
  EXPECT_FALSE(begun->done());
  EXPECT_EQ(MetadataOf(*begun).kind(), v1::JobMetadata::KIND_CHECK);
  EXPECT_EQ(MetadataOf(*begun).done_bytes(), 50u);
  EXPECT_EQ(MetadataOf(*begun).total_bytes(), 100u);
  EXPECT_EQ(Get("images/a").state(), v1::Image::STATE_ACTIVE);
  EXPECT_EQ(Get("images/a").operation(), begun->name());
  EXPECT_EQ(ReasonIn(Clone("b", "images/a").status()), "OPERATION_IN_PROGRESS");
  EXPECT_EQ(ReasonIn(CreateExport("e", "images/a").status()), "OPERATION_IN_PROGRESS");
  EXPECT_EQ(ReasonIn(Check("images/a").status()), "OPERATION_IN_PROGRESS");
  engine_->ReleaseChecks();
  EXPECT_TRUE(ResultOf(begun).ok());
  EXPECT_TRUE(Clone("b", "images/a").ok());
}

TEST_F(ImageCareTest, ACheckThatIsCancelledHasLetGoOfTheFileWhenItEnds) {
  ASSERT_TRUE(CreateQcow2("a").ok());
  engine_->HoldChecks();
  const auto begun = Check("images/a", Repair::REPAIR_ALL);
  ASSERT_TRUE(begun.ok()) << begun.status();
  ASSERT_TRUE(domain_->operations().Cancel(begun->name()).ok());
  const Operation ended = Ended(*begun);
  EXPECT_EQ(ReasonIn(FromRpcStatus(ended.error())), "OPERATION_CANCELLED");
  EXPECT_EQ(engine_->calls("RepairImage"), 1) << "The check has answered.";
  EXPECT_TRUE(Get("images/a").operation().empty());
  EXPECT_TRUE(DeleteImage("images/a").ok());
}

TEST_F(ImageCareTest, ACheckBeginsAnewAfterARestart) {
  ASSERT_TRUE(CreateQcow2("a").ok());
  engine_->SetReport(ThreeLeaks());
  engine_->HoldChecks();
  const auto begun = Check("images/a");
  ASSERT_TRUE(begun.ok()) << begun.status();
  prepare_engine_ = [](FakeEngine* engine) { engine->SetReport(ThreeLeaks()); };
  Restart();
  const auto found = ResultOf(begun);
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->leaks(), 3u);
  EXPECT_TRUE(Get("images/a").operation().empty());
}

TEST_F(ImageCareTest, ACheckThatFailsLeavesTheImageUsable) {
  ASSERT_TRUE(CreateQcow2("a").ok());
  engine_->FailNext("CheckImage", WithReason(absl::DataLossError("The header makes no sense."),
                                             {"IMAGE_CORRUPT", {{"image", "images/a"}}}));
  EXPECT_EQ(ReasonIn(ResultOf(Check("images/a")).status()), "IMAGE_CORRUPT");
  EXPECT_TRUE(Get("images/a").operation().empty());
  EXPECT_TRUE(ResultOf(Check("images/a")).ok());
}

TEST_F(ImageCareTest, ADryRunOfACheckLeavesNothing) {
  ASSERT_TRUE(CreateQcow2("a").ok());
  const auto told = Check("images/a", Repair::REPAIR_ALL, DryRun());
  ASSERT_TRUE(told.ok()) << told.status();
  EXPECT_TRUE(told->done() && told->name().empty());
  EXPECT_EQ(engine_->calls("RepairImage"), 0);
  EXPECT_TRUE(Get("images/a").operation().empty());
  EXPECT_EQ(ReasonIn(Check("images/none", Repair::REPAIR_NONE, DryRun()).status()),
            "RESOURCE_NOT_FOUND");
}

TEST_F(ImageCareTest, AnImageThatSaysThatItIsCorruptIsToldAsThatUntilItIsRepaired) {
  ASSERT_TRUE(CreateQcow2("a").ok());
  FakeFiles::File file = files_.Get("a.qcow2");
  file.qcow2.corrupt = true;
  files_.Put("a.qcow2", file);
  EXPECT_EQ(Get("images/a").state(), v1::Image::STATE_CORRUPT);
  EXPECT_EQ(ReasonIn(FromRpcStatus(Get("images/a").state_error())), "IMAGE_CORRUPT");
  EXPECT_EQ(ReasonIn(Resize("images/a", 8192).status()), "IMAGE_CORRUPT");
  EXPECT_TRUE(ResultOf(Check("images/a", Repair::REPAIR_ALL)).ok());
  file.qcow2.corrupt = false;
  files_.Put("a.qcow2", file);
  EXPECT_EQ(Get("images/a").state(), v1::Image::STATE_ACTIVE);
}

TEST_F(ImageCareTest, AMeasureCountsTheClustersThatHaveData) {
  const auto empty = domain_->images().Measure(MeasureOf(10 << 20));
  ASSERT_TRUE(empty.ok()) << empty.status();
  EXPECT_GT(empty->fully_allocated_bytes(), uint64_t{10} << 20);
  EXPECT_LT(empty->required_bytes(), uint64_t{1} << 20);
  ASSERT_TRUE(CreateImage("a", 10 << 20).ok());
  Fill("a.raw", 65530, "0123456789");  // in two clusters
  v1::MeasureImageRequest request = MeasureOf(0);
  request.set_source("images/a");
  const auto full = domain_->images().Measure(request);
  ASSERT_TRUE(full.ok()) << full.status();
  EXPECT_EQ(full->required_bytes(), empty->required_bytes() + 2 * 65536);
  EXPECT_EQ(full->fully_allocated_bytes(), empty->fully_allocated_bytes());
}

TEST_F(ImageCareTest, AMeasureWantsASizeOrASourceAndABackingImageThatThereIs) {
  EXPECT_THAT(ViolationsOf(domain_->images().Measure(MeasureOf(0)).status()),
              ElementsAre("image.virtual_size_bytes FIELD_REQUIRED"));
  v1::MeasureImageRequest request = MeasureOf(4096);
  request.set_source("images/none");
  const absl::Status missing = domain_->images().Measure(request).status();
  EXPECT_EQ(ReasonIn(missing), "RESOURCE_NOT_FOUND");
  EXPECT_EQ(MetadataIn(missing, "field"), "source");
  request = MeasureOf(4096);
  request.mutable_image()->set_backing_image("images/none");
  EXPECT_EQ(MetadataIn(domain_->images().Measure(request).status(), "field"),
            "image.backing_image");
  request.mutable_image()->mutable_raw();
  EXPECT_THAT(ViolationsOf(domain_->images().Measure(request).status()),
              ElementsAre("image.backing_image FIELD_INVALID"));
}

}  // namespace
}  // namespace gabion::service
