// The images that filters name: who may write to them, and how long they are in use.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/service/domain/fixture.h"

namespace gabion::service {
namespace {

constexpr const char* kCow = "entry_id: 'cow' spec { cow { image { image: 'images/s' } } }";

class FilterImagesTest : public DomainFixture {
 protected:
  FilterImagesTest() {
    EXPECT_TRUE(CreateImage("a").ok());
    EXPECT_TRUE(CreateQcow2("s").ok());
  }

  // exports/e of images/a, read only, whose changes are kept in images/s.
  void MakeReadOnly() {
    const auto made = CreateExport("e", "images/a", [](v1::Export* e) {
      e->set_read_only(true);
      AddEntry(e, kCow);
    });
    ASSERT_TRUE(made.ok()) << made.status();
  }
  absl::StatusOr<v1::Export> SetReadOnly(bool read_only) {
    v1::Export exported;
    exported.set_name("exports/e");
    exported.set_read_only(read_only);
    return UpdateExport(exported, {"read_only"});
  }
  absl::StatusOr<v1::Export> Attach(const std::string& request) {
    v1::AttachFilterRequest parsed;
    EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(request, &parsed)) << request;
    parsed.set_name("exports/e");
    return domain_->exports().AttachFilter(parsed, Call());
  }
  absl::StatusOr<v1::Export> Detach(const std::string& entry_id) {
    v1::DetachFilterRequest request;
    request.set_name("exports/e");
    request.set_entry_id(entry_id);
    return domain_->exports().DetachFilter(request, Call());
  }
  // Makes a tombstone of the image.
  void Bury(const std::string& image) {
    v1::DeleteImageRequest request;
    request.set_name(image);
    request.set_mode(v1::DeleteImageRequest::MODE_TOMBSTONE);
    request.mutable_retention()->set_seconds(3600);
    const auto buried = domain_->images().Delete(request, Call());
    ASSERT_TRUE(buried.ok()) << buried.status();
  }
};

TEST_F(FilterImagesTest, NobodyDecidesAboutAnImageWhileAnExportBecomesOneThatWritesToIt) {
  MakeReadOnly();
  std::promise<void> begun;
  std::promise<void> go_on;
  std::atomic<bool> first = true;
  store_.SetGate([&]() -> absl::Status {
    if (first.exchange(false)) {
      begun.set_value();
      go_on.get_future().wait();
    }
    return absl::OkStatus();
  });
  std::thread changer([&] { EXPECT_TRUE(SetReadOnly(false).ok()); });
  begun.get_future().wait();
  v1::CloneImageRequest clone;
  clone.set_image_id("c");
  clone.set_source("images/s");
  Call call;
  call.patience.until = Patience::Clock::now() + std::chrono::milliseconds(10);
  const absl::Status meanwhile = domain_->images().Clone(clone, call).status();
  EXPECT_EQ(ReasonIn(meanwhile), "OPERATION_IN_PROGRESS") << meanwhile;
  go_on.set_value();
  changer.join();
  EXPECT_EQ(ReasonIn(Clone("c", "images/s").status()), "IMAGE_IN_USE");
}

TEST_F(FilterImagesTest, WhatReadsFillInIsWrittenAlsoByAReadOnlyExport) {
  ASSERT_TRUE(CreateQcow2("b").ok());
  const auto made = CreateExport("e", "images/b", [](v1::Export* e) {
    e->set_read_only(true);
    AddEntry(e, "entry_id: 'fill' spec { copy_on_read {} }");
    AddEntry(e, kCow);
  });
  ASSERT_TRUE(made.ok()) << made.status();
  const absl::Status in_use = Clone("c", "images/s").status();
  EXPECT_EQ(ReasonIn(in_use), "IMAGE_IN_USE");
  EXPECT_EQ(MetadataIn(in_use, "exports"), "exports/e");
  ASSERT_TRUE(Clone("c", "images/b").ok());  // below the cow
  // Without the cow the export would write to it, with it to the other.
  EXPECT_EQ(ReasonIn(Detach("cow").status()), "IMAGE_HAS_DEPENDENTS");
  ASSERT_TRUE(Detach("fill").ok());
  ASSERT_TRUE(Clone("d", "images/s").ok());
  const absl::Status refused = Attach("entry { spec { copy_on_read {} } }").status();
  EXPECT_EQ(ReasonIn(refused), "IMAGE_HAS_DEPENDENTS");
  EXPECT_EQ(MetadataIn(refused, "image"), "images/s");
}

TEST_F(FilterImagesTest, ABypassedEntryKeepsItsImage) {
  ASSERT_TRUE(CreateFilter("same", "verify { reference_image: 'images/r' }").ok());
  ASSERT_TRUE(CreateImage("r").ok());
  const auto made = CreateExport("e", "images/a", [](v1::Export* e) {
    AddEntry(e, std::string(kCow) + " bypassed: true");
    AddEntry(e, "filter: 'filters/same' bypassed: true");
  });
  ASSERT_TRUE(made.ok()) << made.status();
  for (const char* image : {"images/s", "images/r"}) {
    EXPECT_EQ(ReasonIn(DeleteImage(image)), "IMAGE_IN_USE") << image;
  }
  // Others may have it meanwhile.
  ASSERT_TRUE(CreateExport("s", "images/s").ok());
  ASSERT_TRUE(DeleteExport("exports/s").ok());
  ASSERT_TRUE(Clone("c", "images/s").ok());
  v1::Export exported = GetExport("exports/e");
  exported.mutable_filter_stack(0)->clear_bypassed();
  EXPECT_EQ(ReasonIn(UpdateExport(exported, {"filter_stack"}).status()), "IMAGE_HAS_DEPENDENTS");
}

TEST_F(FilterImagesTest, ADeletedImageStaysWhereItIsAndComesNowhereElse) {
  ASSERT_TRUE(CreateImage("r").ok());
  ASSERT_TRUE(CreateFilter("same", "verify { reference_image: 'images/r' }").ok());
  ASSERT_TRUE(CreateFilter("other", "verify { reference_image: 'images/a' }").ok());
  const auto made = CreateExport("e", "images/a", [](v1::Export* e) {
    e->set_read_only(true);
    AddEntry(e, kCow);
    AddEntry(e, "filter: 'filters/same' bypassed: true");
  });
  ASSERT_TRUE(made.ok()) << made.status();
  Bury("images/s");
  Bury("images/r");
  for (const auto& [entry, field] : std::vector<std::pair<std::string, std::string>>{
           {kCow, "export.filter_stack[0].spec.cow.image.image"},
           {"filter: 'filters/same'", "export.filter_stack[0].filter.verify.reference_image"}}) {
    const absl::Status deleted =
        CreateExport("f", "images/a", [&](v1::Export* e) { AddEntry(e, entry); }).status();
    EXPECT_EQ(ReasonIn(deleted), "IMAGE_DELETED") << deleted;
    EXPECT_EQ(MetadataIn(deleted, "field"), field);
    EXPECT_EQ(MetadataIn(deleted, "index"), "0");
  }
  // Whoever has it goes on, with other entries too.
  ASSERT_TRUE(Attach("entry { spec { log {} } }").ok());
  v1::Export exported = GetExport("exports/e");
  exported.mutable_filter_stack(2)->clear_bypassed();
  ASSERT_TRUE(UpdateExport(exported, {"filter_stack"}).ok());
  Restart();
  EXPECT_EQ(GetExport("exports/e").state(), v1::Export::STATE_ACTIVE);
  // Once it has let go of it, it does not get it again.
  ASSERT_TRUE(Detach("cow").ok());
  const absl::Status again = Attach(std::string("entry { ") + kCow + " }").status();
  EXPECT_EQ(ReasonIn(again), "IMAGE_DELETED") << again;
  EXPECT_EQ(MetadataIn(again, "field"), "entry.spec.cow.image.image");
}

TEST_F(FilterImagesTest, ANamedFilterDoesNotComeToNameADeletedImage) {
  ASSERT_TRUE(CreateImage("r").ok());
  ASSERT_TRUE(CreateImage("q").ok());
  ASSERT_TRUE(CreateFilter("same", "verify { reference_image: 'images/q' }").ok());
  const auto made =
      CreateExport("e", "images/a", [](v1::Export* e) { AddEntry(e, "filter: 'filters/same'"); });
  ASSERT_TRUE(made.ok()) << made.status();
  Bury("images/r");
  const absl::Status deleted =
      UpdateFilter("filters/same", "verify { reference_image: 'images/r' }").status();
  EXPECT_EQ(ReasonIn(deleted), "IMAGE_DELETED") << deleted;
  EXPECT_EQ(MetadataIn(deleted, "export"), "exports/e");
  EXPECT_EQ(MetadataIn(deleted, "field"), "filter.spec.verify.reference_image");
  Bury("images/q");
  const auto other = UpdateFilter(
      "filters/same", "verify { reference_image: 'images/q' on_mismatch: ON_MISMATCH_REPORT }");
  EXPECT_TRUE(other.ok()) << other.status();
}

// What was written though the answer got lost counts, and what was not does not.
TEST_F(FilterImagesTest, AnUpdateWhoseBeginFailsHoldsTheImagesThatItMayHave) {
  ASSERT_TRUE(CreateImage("q").ok());
  ASSERT_TRUE(CreateImage("r").ok());
  ASSERT_TRUE(CreateFilter("same", "verify { reference_image: 'images/q' }").ok());
  const auto made =
      CreateExport("e", "images/a", [](v1::Export* e) { AddEntry(e, "filter: 'filters/same'"); });
  ASSERT_TRUE(made.ok()) << made.status();
  const auto fail = []() -> absl::Status { return absl::UnavailableError("the disk is full"); };
  store_.SetGate(fail);
  EXPECT_FALSE(UpdateFilter("filters/same", "verify { reference_image: 'images/r' }").ok());
  store_.SetGate({});
  EXPECT_EQ(ReasonIn(DeleteImage("images/q")), "IMAGE_IN_USE");
  EXPECT_TRUE(DeleteImage("images/r").ok());
  ASSERT_TRUE(CreateImage("r").ok());
  store_.SetAnswerGate(fail);
  EXPECT_FALSE(UpdateFilter("filters/same", "verify { reference_image: 'images/r' }").ok());
  store_.SetAnswerGate({});
  EXPECT_EQ(ReasonIn(DeleteImage("images/q")), "IMAGE_IN_USE");
  EXPECT_EQ(ReasonIn(DeleteImage("images/r")), "IMAGE_IN_USE");
  const auto again = UpdateFilter("filters/same", "verify { reference_image: 'images/r' }");
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_TRUE(DeleteImage("images/q").ok());
  EXPECT_EQ(ReasonIn(DeleteImage("images/r")), "IMAGE_IN_USE");
}

TEST_F(FilterImagesTest, AFilterWhoseCreationWasNotAnsweredHasItsImages) {
  ASSERT_TRUE(CreateImage("r").ok());
  const auto fail = []() -> absl::Status { return absl::UnavailableError("the disk is full"); };
  store_.SetAnswerGate(fail);
  EXPECT_FALSE(CreateFilter("same", "verify { reference_image: 'images/r' }").ok());
  store_.SetAnswerGate({});
  const auto made =
      CreateExport("e", "images/a", [](v1::Export* e) { AddEntry(e, "filter: 'filters/same'"); });
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_EQ(ReasonIn(DeleteImage("images/r")), "IMAGE_IN_USE");
}

}  // namespace
}  // namespace gabion::service
