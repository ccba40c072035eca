#include "service/domain/filter_manager.h"

#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "engine/base/reason.h"
#include "tests/service/domain/fixture.h"

namespace gabion::service {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr const char* kSlow = "filters/slow";
constexpr const char* kOneSecond = "delay { read { seconds: 1 } }";
constexpr const char* kTwoSeconds = "delay { read { seconds: 2 } }";

class FilterManagerTest : public DomainFixture {
 protected:
  FilterManagerTest() {
    EXPECT_TRUE(CreateImage("a").ok());
    EXPECT_TRUE(CreateImage("b").ok());
    EXPECT_TRUE(CreateFilter("slow", kOneSecond).ok());
  }

  // exports/{ids} of images/a with the filter.
  void MakeExports(const std::vector<std::string>& ids, const std::string& image = "images/a") {
    for (const std::string& id : ids) {
      const auto made =
          CreateExport(id, image, [](v1::Export* e) { AddEntry(e, "filter: 'filters/slow'"); });
      ASSERT_TRUE(made.ok()) << made.status();
    }
  }
  // Seconds that reads of the export take now; 0: it has no such filter.
  int64_t DelayOf(const std::string& exported) {
    const auto stack = engine_->Spec(exported).filters;
    if (stack.empty()) return 0;
    const auto read = std::get<filters::DelayOptions>(stack[0].options).read;
    return std::chrono::duration_cast<std::chrono::seconds>(read).count();
  }
  void ExpectAsBefore(const std::vector<std::string>& exports) {
    EXPECT_EQ(GetFilter(kSlow).generation(), 1u);
    EXPECT_EQ(GetFilter(kSlow).observed_generation(), 1u);
    EXPECT_EQ(GetFilter(kSlow).spec().delay().read().seconds(), 1);
    for (const std::string& name : exports) EXPECT_EQ(DelayOf(name), 1) << name;
    EXPECT_TRUE(kept_->List("intents", "", 10)->rows.empty());
  }
  // The engine serves this export with no delay of two seconds.
  void RefuseTwoSeconds(const std::string& exported) {
    engine_->SetStackCheck([exported](const engine::ExportSpec& spec) -> absl::Status {
      if (spec.name != exported || spec.filters.empty()) return absl::OkStatus();
      const auto read = std::get<filters::DelayOptions>(spec.filters[0].options).read;
      if (read != std::chrono::seconds(2)) return absl::OkStatus();
      return WithReason(absl::InvalidArgumentError("too slow"),
                        {"FILTER_PARAMETERS_INVALID",
                         {{"entry-id", "slow"}, {"index", "0"}, {"field", "delay.read"}}});
    });
  }
};

TEST_F(FilterManagerTest, ACreatedFilterIsToldWithWhatFollowsFromIt) {
  const auto gold = CreateFilter("gold", "throttle {}");
  ASSERT_TRUE(gold.ok()) << gold.status();
  EXPECT_EQ(gold->name(), "filters/gold");
  EXPECT_EQ(gold->generation(), 1u);
  EXPECT_EQ(gold->observed_generation(), 1u);
  EXPECT_TRUE(gold->shares_state());
  EXPECT_FALSE(gold->etag().empty());
  EXPECT_EQ(gold->attachment_count(), 0u);
  EXPECT_EQ(GetFilter("filters/gold").DebugString(), gold->DebugString());
  EXPECT_FALSE(GetFilter(kSlow).shares_state());
}

TEST_F(FilterManagerTest, ATakenNameIsRefused) {
  EXPECT_EQ(ReasonIn(CreateFilter("slow", kOneSecond).status()), "RESOURCE_EXISTS");
  const absl::Status differs = CreateFilter("slow", kTwoSeconds).status();
  EXPECT_EQ(ReasonIn(differs), "RESOURCE_EXISTS_DIFFERENT");
  EXPECT_EQ(MetadataIn(differs, "differing-fields"), "spec");
}

TEST_F(FilterManagerTest, ADryRunOfACreationLeavesNothing) {
  v1::CreateFilterRequest request;
  request.set_filter_id("gold");
  request.mutable_filter()->mutable_spec()->mutable_throttle();
  Call call;
  call.validate_only = true;
  EXPECT_TRUE(domain_->filters().Create(request, call).ok());
  EXPECT_EQ(ReasonIn(domain_->filters().Get("filters/gold").status()), "RESOURCE_NOT_FOUND");
}

TEST_F(FilterManagerTest, AnUpdateReachesEveryExport) {
  MakeExports({"e", "f"});
  MakeExports({"g"}, "images/b");
  const auto updated = UpdateFilter(kSlow, kTwoSeconds);
  ASSERT_TRUE(updated.ok()) << updated.status();
  EXPECT_EQ(updated->generation(), 2u);
  EXPECT_EQ(updated->observed_generation(), 2u);
  EXPECT_THAT(updated->exports(), ElementsAre("exports/e", "exports/f", "exports/g"));
  for (const char* name : {"exports/e", "exports/f", "exports/g"}) {
    EXPECT_EQ(DelayOf(name), 2) << name;
    EXPECT_EQ(GetExport(name).generation(), 1u);
  }
  Restart();
  EXPECT_EQ(DelayOf("exports/g"), 2);
}

TEST_F(FilterManagerTest, WhatDoesNotConcernTheEngineDoesNotReachIt) {
  MakeExports({"e"});
  v1::UpdateFilterRequest request;
  request.mutable_filter()->set_name(kSlow);
  request.mutable_filter()->set_description("for tests");
  (*request.mutable_filter()->mutable_labels())["tier"] = "bronze";
  const auto updated = domain_->filters().Update(request, Call());
  ASSERT_TRUE(updated.ok()) << updated.status();
  EXPECT_EQ(updated->generation(), 2u);
  EXPECT_EQ(updated->observed_generation(), 2u);
  EXPECT_EQ(updated->description(), "for tests");
  EXPECT_EQ(engine_->calls("UpdateExport"), 0);
  EXPECT_EQ(engine_->calls("CheckExport"), 0);
}

TEST_F(FilterManagerTest, TheSameSpecIsNoChange) {
  MakeExports({"e"});
  const auto same = UpdateFilter(kSlow, kOneSecond);
  ASSERT_TRUE(same.ok()) << same.status();
  EXPECT_EQ(same->generation(), 1u);
  EXPECT_EQ(engine_->calls("UpdateExport"), 0);
}

TEST_F(FilterManagerTest, TheKindCannotChange) {
  const absl::Status refused = UpdateFilter(kSlow, "log {}").status();
  EXPECT_EQ(ReasonIn(refused), "FIELD_IMMUTABLE");
  EXPECT_EQ(MetadataIn(refused, "field"), "filter.spec.kind");
}

TEST_F(FilterManagerTest, AnotherEtagIsRefused) {
  v1::UpdateFilterRequest update;
  *update.mutable_filter() = GetFilter(kSlow);
  update.mutable_filter()->set_description("d");
  ASSERT_TRUE(domain_->filters().Update(update, Call()).ok());
  EXPECT_EQ(ReasonIn(domain_->filters().Update(update, Call()).status()), "ETAG_MISMATCH");
  v1::DeleteFilterRequest request;
  request.set_name(kSlow);
  request.set_etag(update.filter().etag());
  EXPECT_EQ(ReasonIn(domain_->filters().Delete(request, Call())), "ETAG_MISMATCH");
  request.set_etag(GetFilter(kSlow).etag());
  EXPECT_TRUE(domain_->filters().Delete(request, Call()).ok());
}

TEST_F(FilterManagerTest, OneExportThatRefusesKeepsAllOthersFromChanging) {
  MakeExports({"e", "f", "g"});
  RefuseTwoSeconds("exports/g");
  const absl::Status refused = UpdateFilter(kSlow, kTwoSeconds).status();
  EXPECT_EQ(ReasonIn(refused), "FILTER_PARAMETERS_INVALID");
  EXPECT_EQ(MetadataIn(refused, "export"), "exports/g");
  EXPECT_EQ(MetadataIn(refused, "field"), "filter.spec.delay.read");
  EXPECT_EQ(engine_->calls("UpdateExport"), 0);
  ExpectAsBefore({"exports/e", "exports/f", "exports/g"});
}

TEST_F(FilterManagerTest, ADryRunAsksEveryExportAndChangesNone) {
  MakeExports({"e", "f"});
  v1::UpdateFilterRequest request;
  request.mutable_filter()->set_name(kSlow);
  *request.mutable_filter()->mutable_spec() = FilterSpecOf(kTwoSeconds);
  Call call;
  call.validate_only = true;
  const auto tried = domain_->filters().Update(request, call);
  ASSERT_TRUE(tried.ok()) << tried.status();
  EXPECT_EQ(tried->spec().delay().read().seconds(), 2);
  EXPECT_EQ(tried->generation(), 2u);
  ExpectAsBefore({"exports/e", "exports/f"});
  RefuseTwoSeconds("exports/f");
  EXPECT_EQ(ReasonIn(domain_->filters().Update(request, call).status()),
            "FILTER_PARAMETERS_INVALID");
}

TEST_F(FilterManagerTest, WhatFailsInTheMiddleIsTakenBackWhereItWasDone) {
  MakeExports({"e", "f", "g"});
  engine_->FailNext("UpdateExport", absl::OkStatus());
  engine_->FailNext("UpdateExport", WithReason(absl::AbortedError("requests in flight"),
                                               {"QUIESCE_TIMEOUT", {{"timeout", "5s"}}}));
  const absl::Status failed = UpdateFilter(kSlow, kTwoSeconds).status();
  EXPECT_EQ(ReasonIn(failed), "QUIESCE_TIMEOUT");
  EXPECT_EQ(MetadataIn(failed, "export"), "exports/f");
  ExpectAsBefore({"exports/e", "exports/f", "exports/g"});
}

TEST_F(FilterManagerTest, WhatCannotBeTakenBackEndsInTheBackground) {
  MakeExports({"e", "f"});
  const absl::Status late =
      WithReason(absl::AbortedError("requests in flight"), {"QUIESCE_TIMEOUT", {}});
  engine_->FailNext("UpdateExport", absl::OkStatus());
  engine_->FailNext("UpdateExport", late);
  engine_->FailNext("UpdateExport", late);  // on the way back
  EXPECT_EQ(ReasonIn(UpdateFilter(kSlow, kTwoSeconds).status()), "QUIESCE_TIMEOUT");
  // Whoever comes next finds it ended.
  v1::UpdateFilterRequest request;
  request.mutable_filter()->set_name(kSlow);
  request.mutable_filter()->set_description("d");
  const auto next = domain_->filters().Update(request, Call());
  ASSERT_TRUE(next.ok()) << next.status();
  EXPECT_EQ(next->observed_generation(), next->generation());
  const int64_t delay = next->spec().delay().read().seconds();
  EXPECT_EQ(DelayOf("exports/e"), delay);
  EXPECT_EQ(DelayOf("exports/f"), delay);
  EXPECT_TRUE(kept_->List("intents", "", 10)->rows.empty());
}

TEST_F(FilterManagerTest, ExportsThatCannotBeServedAreNotAskedAndAreTriedAgain) {
  MakeExports({"e"});
  MakeExports({"g"}, "images/b");
  files_.SetLocked("b.raw", true);
  Restart();
  ASSERT_EQ(GetExport("exports/g").state(), v1::Export::STATE_FAILED);
  const auto updated = UpdateFilter(kSlow, kTwoSeconds);
  ASSERT_TRUE(updated.ok()) << updated.status();
  EXPECT_EQ(DelayOf("exports/e"), 2);
  const int tried = engine_->calls("CreateExport");
  files_.SetLocked("b.raw", false);
  while (GetExport("exports/g").state() == v1::Export::STATE_FAILED) {
    engine_->AwaitCalls("CreateExport", tried);
    std::this_thread::yield();
  }
  EXPECT_EQ(DelayOf("exports/g"), 2);
}

TEST_F(FilterManagerTest, AnUpdateBringsBackWhatCouldNotBeServedBecauseOfTheFilter) {
  MakeExports({"e"});
  ASSERT_TRUE(UpdateFilter(kSlow, kTwoSeconds).ok());
  prepare_engine_ = [this](FakeEngine*) { RefuseTwoSeconds("exports/e"); };
  Restart();
  ASSERT_EQ(GetExport("exports/e").state(), v1::Export::STATE_FAILED);
  ASSERT_TRUE(UpdateFilter(kSlow, kOneSecond).ok());
  while (GetExport("exports/e").state() == v1::Export::STATE_FAILED) std::this_thread::yield();
  EXPECT_EQ(DelayOf("exports/e"), 1);
}

TEST_F(FilterManagerTest, OneThatSeesItsClientsOffStaysHidden) {
  MakeExports({"e"});
  engine_->AddConnection("exports/e", {.id = 1});
  v1::DeleteExportRequest request;
  request.set_name("exports/e");
  request.set_mode(v1::DeleteExportRequest::MODE_HIDE);
  ASSERT_TRUE(domain_->exports().Delete(request, Call()).ok());
  ASSERT_TRUE(UpdateFilter(kSlow, kTwoSeconds).ok());
  EXPECT_EQ(DelayOf("exports/e"), 2);
  EXPECT_FALSE(engine_->Spec("exports/e").enabled);
  engine_->RemoveConnection("exports/e", 1);
  AwaitOperations();
}

TEST_F(FilterManagerTest, RequestsAreHeldBackAsLongAsTheCallerSays) {
  MakeExports({"e"});
  v1::UpdateFilterRequest request;
  request.mutable_filter()->set_name(kSlow);
  *request.mutable_filter()->mutable_spec() = FilterSpecOf(kTwoSeconds);
  request.mutable_quiesce_timeout()->set_seconds(60);
  ASSERT_TRUE(domain_->filters().Update(request, Call()).ok());
  EXPECT_EQ(engine_->Spec("exports/e").quiesce_timeout, std::chrono::minutes(1));
}

TEST_F(FilterManagerTest, WhatIsAttachedIsNotDeleted) {
  MakeExports({"f", "e"});
  const absl::Status refused = DeleteFilter(kSlow);
  EXPECT_EQ(ReasonIn(refused), "FILTER_IN_USE");
  EXPECT_EQ(MetadataIn(refused, "exports"), "exports/e,exports/f");
  ASSERT_TRUE(DeleteExport("exports/e").ok());
  EXPECT_EQ(MetadataIn(DeleteFilter(kSlow), "exports"), "exports/f");
  ASSERT_TRUE(DeleteExport("exports/f").ok());
  v1::DeleteFilterRequest request;
  request.set_name(kSlow);
  Call call;
  call.validate_only = true;
  EXPECT_TRUE(domain_->filters().Delete(request, call).ok());
  EXPECT_TRUE(DeleteFilter(kSlow).ok());
  EXPECT_EQ(ReasonIn(DeleteFilter(kSlow)), "RESOURCE_NOT_FOUND");
  request.set_allow_missing(true);
  EXPECT_TRUE(domain_->filters().Delete(request, Call()).ok());
}

TEST_F(FilterManagerTest, AFilterOfAnOldNameIsAnotherOne) {
  const std::string uid = GetFilter(kSlow).uid();
  ASSERT_TRUE(DeleteFilter(kSlow).ok());
  const auto anew = CreateFilter("slow", kOneSecond);
  ASSERT_TRUE(anew.ok()) << anew.status();
  EXPECT_NE(anew->uid(), uid);
}

TEST_F(FilterManagerTest, AListHasAllOfThemPageByPage) {
  ASSERT_TRUE(CreateFilter("gold", "throttle {}").ok());
  ASSERT_TRUE(CreateFilter("log", "log {}").ok());
  v1::ListFiltersRequest request;
  request.set_page_size(2);
  const auto first = domain_->filters().List(request);
  ASSERT_TRUE(first.ok()) << first.status();
  ASSERT_EQ(first->filters_size(), 2);
  EXPECT_EQ(first->filters(0).name(), "filters/gold");
  request.set_page_token(first->next_page_token());
  const auto second = domain_->filters().List(request);
  ASSERT_TRUE(second.ok()) << second.status();
  ASSERT_EQ(second->filters_size(), 1);
  EXPECT_EQ(second->filters(0).name(), kSlow);
  v1::ListFiltersRequest matching;
  matching.set_filter("shares_state = true");
  const auto matched = domain_->filters().List(matching);
  ASSERT_TRUE(matched.ok()) << matched.status();
  EXPECT_EQ(matched->filters_size(), 1);
}

TEST_F(FilterManagerTest, NobodyAttachesAFilterThatIsBeingDeletedOrMissesAnUpdate) {
  MakeExports({"e"});
  std::atomic<bool> stop = false;
  // Attached and detached all the time by one, updated and deleted by another.
  std::thread attacher([&] {
    for (int i = 0; !stop; ++i) {
      v1::Export exported;
      exported.set_name("exports/e");
      if (i % 2 != 0) AddEntry(&exported, "filter: 'filters/slow'");
      const absl::Status changed = UpdateExport(exported, {"filter_stack"}).status();
      EXPECT_TRUE(changed.ok() || ReasonIn(changed) == "RESOURCE_NOT_FOUND") << changed;
    }
  });
  int deleted = 0;
  for (int i = 0; i < 200; ++i) {
    const std::string spec = i % 2 == 0 ? kTwoSeconds : kOneSecond;
    const auto updated = UpdateFilter(kSlow, spec);
    ASSERT_TRUE(updated.ok()) << updated.status();
    const absl::Status status = DeleteFilter(kSlow);
    if (status.ok()) {
      ++deleted;
      const auto stack = engine_->Spec("exports/e").filters;
      EXPECT_THAT(stack, IsEmpty());
      ASSERT_TRUE(CreateFilter("slow", spec).ok());
    } else {
      EXPECT_EQ(ReasonIn(status), "FILTER_IN_USE");
    }
  }
  stop = true;
  attacher.join();
  v1::Export exported;
  exported.set_name("exports/e");
  AddEntry(&exported, "filter: 'filters/slow'");
  ASSERT_TRUE(UpdateExport(exported, {"filter_stack"}).ok());
  EXPECT_EQ(DelayOf("exports/e"), GetFilter(kSlow).spec().delay().read().seconds());
}

}  // namespace
}  // namespace gabion::service
