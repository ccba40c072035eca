// The filters of exports: what is asked for, what is served, and what is refused.
#include <gtest/gtest.h>

#include <atomic>
#include <set>
#include <string>
#include <vector>

#include "engine/base/reason.h"
#include "service/domain/connection_manager.h"
#include "service/domain/export_manager.h"
#include "tests/service/domain/fixture.h"

namespace gabion::service {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

class ExportStackTest : public DomainFixture {
 protected:
  ExportStackTest() {
    EXPECT_TRUE(CreateImage("a").ok());
    EXPECT_TRUE(CreateFilter("slow", "delay { read { seconds: 1 } }").ok());
    EXPECT_TRUE(CreateFilter("gold", "throttle { read_ops { average_per_second: 10 } }").ok());
  }

  // exports/e with the entries gold, delay (inline) and slow.
  void MakeStack() {
    const auto made = CreateExport("e", "images/a", [](v1::Export* e) {
      AddEntry(e, "filter: 'filters/gold'");
      AddEntry(e, "spec { delay { write { seconds: 2 } } }");
      AddEntry(e, "filter: 'filters/slow'");
    });
    ASSERT_TRUE(made.ok()) << made.status();
  }
  absl::StatusOr<v1::Export> Attach(const std::string& request, const Call& call = {}) {
    v1::AttachFilterRequest parsed;
    EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(request, &parsed)) << request;
    parsed.set_name("exports/e");
    return domain_->exports().AttachFilter(parsed, call);
  }
  absl::StatusOr<v1::Export> Detach(const std::string& entry_id, const Call& call = {}) {
    v1::DetachFilterRequest request;
    request.set_name("exports/e");
    request.set_entry_id(entry_id);
    return domain_->exports().DetachFilter(request, call);
  }
  absl::StatusOr<v1::Export> SetStack(const std::vector<std::string>& entries) {
    v1::Export exported;
    exported.set_name("exports/e");
    for (const std::string& entry : entries) AddEntry(&exported, entry);
    return UpdateExport(exported, {"filter_stack"});
  }
  std::vector<std::string> Told() {
    const v1::Export exported = GetExport("exports/e");
    std::vector<std::string> ids;
    for (const auto& entry : exported.filter_stack()) ids.push_back(entry.entry_id());
    return ids;
  }
  std::vector<std::string> Served() {
    std::vector<std::string> ids;
    for (const engine::FilterEntry& entry : engine_->Spec("exports/e").filters) {
      ids.push_back(entry.id);
    }
    return ids;
  }
  std::vector<std::string> ExportsOf(const std::string& filter) {
    const v1::Filter told = GetFilter(filter);
    EXPECT_EQ(told.attachment_count(), static_cast<uint32_t>(told.exports_size()));
    return {told.exports().begin(), told.exports().end()};
  }
  // The filters that are in the log of changes behind `revision`.
  std::set<std::string> ToldSince(uint64_t revision) {
    const auto changes = kept_->Changes(revision, 100);
    EXPECT_TRUE(changes.ok()) << changes.status();
    std::set<std::string> names;
    for (const Change& change : *changes) {
      if (change.collection == "filters") names.insert(change.name);
    }
    return names;
  }
  // The next change of an export is refused by the engine.
  void RefuseUpdate(absl::Status status, Reason reason) {
    engine_->FailNext("UpdateExport", WithReason(std::move(status), std::move(reason)));
  }
};

TEST_F(ExportStackTest, AnExportIsServedWithItsFiltersAndTheyTellIt) {
  MakeStack();
  EXPECT_THAT(Told(), ElementsAre("gold", "delay", "slow"));
  EXPECT_THAT(Served(), ElementsAre("gold", "delay", "slow"));
  const std::vector<engine::FilterEntry> stack = engine_->Spec("exports/e").filters;
  EXPECT_EQ(std::get<filters::ThrottleOptions>(stack[0].options).read_operations.per_second, 10u);
  EXPECT_EQ(stack[0].shared_as, "filters/gold/" + GetFilter("filters/gold").uid());
  EXPECT_EQ(std::get<filters::DelayOptions>(stack[1].options).write, std::chrono::seconds(2));
  EXPECT_EQ(std::get<filters::DelayOptions>(stack[2].options).read, std::chrono::seconds(1));
  EXPECT_THAT(ExportsOf("filters/gold"), ElementsAre("exports/e"));
  EXPECT_THAT(ExportsOf("filters/slow"), ElementsAre("exports/e"));
}

TEST_F(ExportStackTest, AfterARestartItIsServedWithThem) {
  MakeStack();
  const auto before = engine_->Spec("exports/e").filters;
  Restart();
  EXPECT_TRUE(engine_->Spec("exports/e").filters == before);
  EXPECT_THAT(ExportsOf("filters/gold"), ElementsAre("exports/e"));
}

TEST_F(ExportStackTest, AFilterThatIsNotThereIsNamedByItsField) {
  const auto made = CreateExport("e", "images/a", [](v1::Export* e) {
    AddEntry(e, "spec { log {} }");
    AddEntry(e, "filter: 'filters/none'");
  });
  EXPECT_EQ(ReasonIn(made.status()), "RESOURCE_NOT_FOUND");
  EXPECT_EQ(MetadataIn(made.status(), "field"), "export.filter_stack[1].filter");
  EXPECT_FALSE(engine_->Serves("exports/e"));
  EXPECT_EQ(ReasonIn(domain_->exports().Get("exports/e").status()), "RESOURCE_NOT_FOUND");
}

TEST_F(ExportStackTest, AnImageThatAFilterNamesIsLookedUp) {
  ASSERT_TRUE(CreateImage("b").ok());
  const auto made = CreateExport("e", "images/a", [](v1::Export* e) {
    AddEntry(e, "spec { verify { reference_image: 'images/b' } }");
  });
  ASSERT_TRUE(made.ok()) << made.status();
  const engine::FilterEntry entry = engine_->Spec("exports/e").filters.front();
  const auto& verify = std::get<engine::VerifyEntry>(entry.options);
  EXPECT_EQ(verify.reference.name, "images/b");
  EXPECT_FALSE(verify.reference.uid.empty());
  const auto none =
      SetStack({"spec { log {} }", "spec { verify { reference_image: 'images/c' } }"});
  EXPECT_EQ(ReasonIn(none.status()), "RESOURCE_NOT_FOUND");
  EXPECT_EQ(MetadataIn(none.status(), "field"),
            "export.filter_stack[1].spec.verify.reference_image");
  const auto above = SetStack({"spec { copy_on_read { bottom_image: 'images/b' } }"});
  EXPECT_EQ(ReasonIn(above.status()), "FILTER_PARAMETERS_INVALID");
  EXPECT_EQ(MetadataIn(above.status(), "index"), "0");
}

TEST_F(ExportStackTest, TheWholeStackIsReplacedAtOnce) {
  MakeStack();
  const auto changed = SetStack({"filter: 'filters/slow' bypassed: true", "spec { stats {} }"});
  ASSERT_TRUE(changed.ok()) << changed.status();
  EXPECT_EQ(changed->generation(), 2u);
  EXPECT_THAT(Served(), ElementsAre("slow", "stats"));
  EXPECT_TRUE(engine_->Spec("exports/e").filters[0].bypassed);
  EXPECT_EQ(engine_->calls("UpdateExport"), 1);
  EXPECT_THAT(ExportsOf("filters/gold"), IsEmpty());
  EXPECT_THAT(ExportsOf("filters/slow"), ElementsAre("exports/e"));
}

TEST_F(ExportStackTest, TheSameStackWithoutIdsIsNoChange) {
  MakeStack();
  const auto same = SetStack({"filter: 'filters/gold'", "spec { delay { write { seconds: 2 } } }",
                              "filter: 'filters/slow'"});
  ASSERT_TRUE(same.ok()) << same.status();
  EXPECT_EQ(same->generation(), 1u);
  EXPECT_EQ(engine_->calls("UpdateExport"), 0);
}

TEST_F(ExportStackTest, AnEntryIsPutWhereTheRequestSays) {
  MakeStack();
  ASSERT_TRUE(Attach("entry { spec { stats {} } }").ok());
  ASSERT_TRUE(Attach("entry { spec { log {} } } index: 4").ok());
  ASSERT_TRUE(Attach("entry { entry_id: 'b' spec { retry {} } } before_entry_id: 'slow'").ok());
  const auto last = Attach("entry { entry_id: 'c' spec { retry {} } } after_entry_id: 'gold'");
  ASSERT_TRUE(last.ok()) << last.status();
  EXPECT_EQ(last->generation(), 5u);
  EXPECT_THAT(Told(), ElementsAre("stats", "gold", "c", "delay", "b", "slow", "log"));
  EXPECT_EQ(Served(), Told());
}

TEST_F(ExportStackTest, APositionThatIsNotThereIsRefusedByItsField) {
  MakeStack();
  const std::string entry = "entry { spec { log {} } } ";
  for (const auto& [position, field] : std::vector<std::pair<std::string, std::string>>{
           {"index: 4", "index"},
           {"index: 4294967295", "index"},
           {"before_entry_id: 'x'", "before_entry_id"},
           {"after_entry_id: 'x'", "after_entry_id"}}) {
    const absl::Status refused = Attach(entry + position).status();
    EXPECT_EQ(ReasonIn(refused), "FIELD_INVALID") << position;
    EXPECT_EQ(MetadataIn(refused, "field"), field);
  }
  EXPECT_EQ(GetExport("exports/e").generation(), 1u);
}

TEST_F(ExportStackTest, AnIdIsAttachedOnceAndASharedFilterToo) {
  MakeStack();
  const absl::Status taken = Attach("entry { entry_id: 'slow' spec { log {} } }").status();
  EXPECT_EQ(ReasonIn(taken), "FILTER_ALREADY_ATTACHED");
  EXPECT_EQ(MetadataIn(taken, "entry-id"), "slow");
  const absl::Status twice = Attach("entry { filter: 'filters/gold' } index: 3").status();
  EXPECT_EQ(ReasonIn(twice), "STACK_ENTRY_DUPLICATE");
  EXPECT_EQ(MetadataIn(twice, "field"), "entry.filter");
  ASSERT_TRUE(Attach("entry { filter: 'filters/slow' } index: 3").ok());
  EXPECT_THAT(Told(), ElementsAre("gold", "delay", "slow", "slow-2"));
}

TEST_F(ExportStackTest, WhatIsWrongWithAnAttachedEntryIsSaidOfTheRequest) {
  MakeStack();
  const absl::Status missing = Attach("entry { filter: 'filters/none' }").status();
  EXPECT_EQ(ReasonIn(missing), "RESOURCE_NOT_FOUND");
  EXPECT_EQ(MetadataIn(missing, "field"), "entry.filter");
  RefuseUpdate(absl::InvalidArgumentError("no such partition"),
               {"FILTER_PARAMETERS_INVALID",
                {{"entry-id", "slice"}, {"index", "0"}, {"field", "slice.partition"}}});
  const absl::Status invalid = Attach("entry { spec { slice { partition: 1 } } }").status();
  EXPECT_EQ(ReasonIn(invalid), "FILTER_PARAMETERS_INVALID");
  EXPECT_EQ(MetadataIn(invalid, "field"), "entry.spec.slice.partition");
  EXPECT_THAT(Told(), ElementsAre("gold", "delay", "slow"));
}

TEST_F(ExportStackTest, AStackIsNotDeeperThanAllowed) {
  MakeStack();
  v1::Export exported = GetExport("exports/e");
  while (exported.filter_stack_size() < 64) AddEntry(&exported, "spec { log {} }");
  ASSERT_TRUE(UpdateExport(exported, {"filter_stack"}).ok());
  const absl::Status attached = Attach("entry { spec { log {} } }").status();
  EXPECT_EQ(ReasonIn(attached), "FILTER_STACK_TOO_DEEP");
  exported = GetExport("exports/e");
  AddEntry(&exported, "spec { log {} }");
  EXPECT_EQ(ReasonIn(UpdateExport(exported, {"filter_stack"}).status()), "FILTER_STACK_TOO_DEEP");
}

TEST_F(ExportStackTest, AnEntryIsTakenOutByItsId) {
  MakeStack();
  const auto left = Detach("gold");
  ASSERT_TRUE(left.ok()) << left.status();
  EXPECT_THAT(Told(), ElementsAre("delay", "slow"));
  EXPECT_EQ(Served(), Told());
  EXPECT_THAT(ExportsOf("filters/gold"), IsEmpty());
  const absl::Status missing = Detach("gold").status();
  EXPECT_EQ(ReasonIn(missing), "RESOURCE_NOT_FOUND");
  EXPECT_EQ(MetadataIn(missing, "entry-id"), "gold");
  v1::DetachFilterRequest request;
  request.set_name("exports/e");
  request.set_entry_id("gold");
  request.set_allow_missing(true);
  const auto nothing = domain_->exports().DetachFilter(request, Call());
  ASSERT_TRUE(nothing.ok()) << nothing.status();
  EXPECT_EQ(nothing->DebugString(), GetExport("exports/e").DebugString());
  request.set_name("exports/none");
  EXPECT_EQ(ReasonIn(domain_->exports().DetachFilter(request, Call()).status()),
            "RESOURCE_NOT_FOUND");
}

TEST_F(ExportStackTest, AnOtherEtagIsRefused) {
  MakeStack();
  v1::DetachFilterRequest detach;
  detach.set_name("exports/e");
  detach.set_entry_id("gold");
  detach.set_etag("\"other\"");
  EXPECT_EQ(ReasonIn(domain_->exports().DetachFilter(detach, Call()).status()), "ETAG_MISMATCH");
  EXPECT_EQ(ReasonIn(Attach("entry { spec { log {} } } etag: '\"other\"'").status()),
            "ETAG_MISMATCH");
  detach.set_etag(GetExport("exports/e").etag());
  EXPECT_TRUE(domain_->exports().DetachFilter(detach, Call()).ok());
}

TEST_F(ExportStackTest, ADryRunTellsTheStackAndLeavesItAsItWas) {
  MakeStack();
  Call call;
  call.validate_only = true;
  const auto attached = Attach("entry { spec { log {} } }", call);
  ASSERT_TRUE(attached.ok()) << attached.status();
  EXPECT_EQ(attached->filter_stack(0).entry_id(), "log");
  EXPECT_EQ(attached->generation(), 2u);
  const auto detached = Detach("gold", call);
  ASSERT_TRUE(detached.ok()) << detached.status();
  EXPECT_EQ(detached->filter_stack_size(), 2);
  EXPECT_THAT(Told(), ElementsAre("gold", "delay", "slow"));
  EXPECT_EQ(engine_->calls("UpdateExport"), 0);
  EXPECT_THAT(ExportsOf("filters/gold"), ElementsAre("exports/e"));
}

TEST_F(ExportStackTest, ADryRunFindsWhatTheEngineSays) {
  MakeStack();
  engine_->SetStackCheck([](const engine::ExportSpec&) {
    return WithReason(absl::FailedPreconditionError("clients"),
                      {"STACK_INCOMPATIBLE_WITH_CONNECTIONS", {{"connections", "1"}}});
  });
  Call call;
  call.validate_only = true;
  EXPECT_EQ(ReasonIn(Detach("gold", call).status()), "STACK_INCOMPATIBLE_WITH_CONNECTIONS");
}

TEST_F(ExportStackTest, RequestsAreHeldBackAsLongAsTheCallerSays) {
  MakeStack();
  ASSERT_TRUE(Detach("delay").ok());
  EXPECT_EQ(engine_->Spec("exports/e").quiesce_timeout, std::chrono::seconds(5));
  ASSERT_TRUE(
      Attach("entry { spec { log {} } } quiesce_timeout { seconds: 1 nanos: 500000000 }").ok());
  EXPECT_EQ(engine_->Spec("exports/e").quiesce_timeout, std::chrono::milliseconds(1500));
  ASSERT_TRUE(Attach("entry { spec { stats {} } } quiesce_timeout {}").ok());
  EXPECT_EQ(engine_->Spec("exports/e").quiesce_timeout, std::chrono::milliseconds(0));
}

TEST_F(ExportStackTest, WhatTheEngineRefusesLeavesAllAsItWas) {
  MakeStack();
  RefuseUpdate(absl::AbortedError("requests in flight"), {"QUIESCE_TIMEOUT", {{"timeout", "5s"}}});
  const absl::Status late = SetStack({"spec { log {} }"}).status();
  EXPECT_EQ(ReasonIn(late), "QUIESCE_TIMEOUT");
  EXPECT_EQ(MetadataIn(late, "export"), "exports/e");
  EXPECT_EQ(MetadataIn(late, "timeout"), "5s");
  RefuseUpdate(absl::FailedPreconditionError("clients"),
               {"STACK_INCOMPATIBLE_WITH_CONNECTIONS", {{"connections", "1"}}});
  const absl::Status incompatible = Detach("gold").status();
  EXPECT_EQ(ReasonIn(incompatible), "STACK_INCOMPATIBLE_WITH_CONNECTIONS");
  EXPECT_EQ(MetadataIn(incompatible, "export"), "exports/e");
  RefuseUpdate(absl::InvalidArgumentError("beyond the end"),
               {"FILTER_PARAMETERS_INVALID",
                {{"entry-id", "slice"}, {"index", "1"}, {"field", "slice.range.length_bytes"}}});
  const absl::Status invalid =
      SetStack({"spec { log {} }", "spec { slice { range { length_bytes: 9 } } }"}).status();
  EXPECT_EQ(MetadataIn(invalid, "field"), "export.filter_stack[1].spec.slice.range.length_bytes");
  EXPECT_EQ(GetExport("exports/e").generation(), 1u);
  EXPECT_THAT(Told(), ElementsAre("gold", "delay", "slow"));
  EXPECT_THAT(ExportsOf("filters/gold"), ElementsAre("exports/e"));
}

TEST_F(ExportStackTest, OneThatIsBeingDeletedKeepsItsStack) {
  MakeStack();
  engine_->AddConnection("exports/e", {.id = 1});
  v1::DeleteExportRequest request;
  request.set_name("exports/e");
  request.set_mode(v1::DeleteExportRequest::MODE_HIDE);
  ASSERT_TRUE(domain_->exports().Delete(request, Call()).ok());
  EXPECT_EQ(ReasonIn(Detach("gold").status()), "OPERATION_IN_PROGRESS");
  EXPECT_EQ(ReasonIn(Attach("entry { spec { log {} } }").status()), "OPERATION_IN_PROGRESS");
  EXPECT_EQ(ReasonIn(DeleteFilter("filters/gold")), "FILTER_IN_USE");
  engine_->RemoveConnection("exports/e", 1);
  AwaitOperations();
  EXPECT_THAT(ExportsOf("filters/gold"), IsEmpty());
  EXPECT_TRUE(DeleteFilter("filters/gold").ok());
}

TEST_F(ExportStackTest, ACreationThatFailsAttachesNothing) {
  engine_->FailNext("CreateExport", absl::UnavailableError("no"));
  EXPECT_FALSE(CreateExport("e", "images/a", [](v1::Export* e) {
                 AddEntry(e, "filter: 'filters/gold'");
               }).ok());
  EXPECT_THAT(ExportsOf("filters/gold"), IsEmpty());
  EXPECT_TRUE(DeleteFilter("filters/gold").ok());
}

TEST_F(ExportStackTest, AFilterIsToldAnewWhenAnExportGetsItOrLetsGoOfIt) {
  uint64_t revision = *kept_->Revision();
  MakeStack();
  EXPECT_THAT(ToldSince(revision), UnorderedElementsAre("filters/gold", "filters/slow"));
  revision = *kept_->Revision();
  ASSERT_TRUE(SetStack({"filter: 'filters/slow'"}).ok());
  EXPECT_THAT(ToldSince(revision), ElementsAre("filters/gold"));
  revision = *kept_->Revision();
  v1::Export other = GetExport("exports/e");
  other.set_description("other");
  ASSERT_TRUE(UpdateExport(other, {"description"}).ok());
  EXPECT_THAT(ToldSince(revision), IsEmpty());
  ASSERT_TRUE(DeleteExport("exports/e").ok());
  EXPECT_THAT(ToldSince(revision), ElementsAre("filters/slow"));
}

TEST_F(ExportStackTest, WhatALetGoThatWasCutOffHasDoneIsToldByTheNextStart) {
  MakeStack();
  std::atomic<int> commits = 0;
  store_.SetGate(
      [&commits] { return ++commits == 1 ? absl::OkStatus() : absl::UnavailableError("no more"); });
  EXPECT_FALSE(Detach("gold").ok());
  Stop();
  const uint64_t revision = *kept_->Revision();
  store_.SetGate({});
  Start();
  EXPECT_THAT(Told(), ElementsAre("delay", "slow"));
  EXPECT_THAT(ToldSince(revision), Contains("filters/gold"));
  EXPECT_THAT(ExportsOf("filters/gold"), IsEmpty());
}

TEST_F(ExportStackTest, AListFindsWhereAFilterIsAttached) {
  MakeStack();
  ASSERT_TRUE(CreateExport("f", "images/a").ok());
  v1::ListExportsRequest request;
  request.set_filter("filter_stack.filter = \"filters/gold\"");
  const auto listed = domain_->exports().List(request);
  ASSERT_TRUE(listed.ok()) << listed.status();
  ASSERT_EQ(listed->exports_size(), 1);
  EXPECT_EQ(listed->exports(0).name(), "exports/e");
}

class FaultStackTest : public ExportStackTest {
 protected:
  FaultStackTest() {
    allowed_ = true;
    adjust_ = [this](DomainOptions* options) { options->allow_fault_filters = allowed_; };
    Restart();
  }
  bool allowed_ = false;
};

TEST_F(FaultStackTest, WithoutTheFlagItIsNotMade) {
  allowed_ = false;
  Restart();
  EXPECT_EQ(ReasonIn(CreateFilter("bad", "fault {}").status()), "FILTER_KIND_DISABLED");
  const auto made =
      CreateExport("e", "images/a", [](v1::Export* e) { AddEntry(e, "spec { fault {} }"); });
  EXPECT_EQ(ReasonIn(made.status()), "FILTER_KIND_DISABLED");
  EXPECT_EQ(MetadataIn(made.status(), "field"), "export.filter_stack[0].spec.fault");
}

TEST_F(FaultStackTest, AStartWithoutTheFlagFailsTheExportAndLosesNothing) {
  ASSERT_TRUE(CreateFilter("bad", "fault {}").ok());
  const auto made =
      CreateExport("e", "images/a", [](v1::Export* e) { AddEntry(e, "filter: 'filters/bad'"); });
  ASSERT_TRUE(made.ok()) << made.status();
  allowed_ = false;
  Restart();
  const v1::Export failed = GetExport("exports/e");
  EXPECT_EQ(failed.state(), v1::Export::STATE_FAILED);
  EXPECT_EQ(ReasonIn(FromRpcStatus(failed.state_error())), "FILTER_KIND_DISABLED");
  EXPECT_THAT(Told(), ElementsAre("bad"));
  v1::Export other = failed;
  other.set_description("other");
  EXPECT_TRUE(UpdateExport(other, {"description"}).ok());
  ASSERT_TRUE(Detach("bad").ok());
  EXPECT_EQ(GetExport("exports/e").state(), v1::Export::STATE_ACTIVE);
  EXPECT_THAT(Served(), IsEmpty());
}

TEST_F(FaultStackTest, AStartWithTheFlagServesItAgain) {
  const auto made =
      CreateExport("e", "images/a", [](v1::Export* e) { AddEntry(e, "spec { fault {} }"); });
  ASSERT_TRUE(made.ok()) << made.status();
  allowed_ = false;
  Restart();
  ASSERT_EQ(GetExport("exports/e").state(), v1::Export::STATE_FAILED);
  allowed_ = true;
  Restart();
  EXPECT_EQ(GetExport("exports/e").state(), v1::Export::STATE_ACTIVE);
  EXPECT_THAT(Served(), ElementsAre("fault"));
}

TEST_F(ExportStackTest, StatisticsAreToldByEntry) {
  MakeStack();
  filters::Statistics counted;
  counted.counters = {{"requests", 7}};
  counted.histograms = {{"read_time_us", {{1, 2}, {~uint64_t{0}, 3}}, 99}};
  engine_->SetStatistics("slow", counted);
  v1::GetFilterStatisticsRequest request;
  request.set_name("exports/e");
  const auto told = domain_->inspector().FilterStatistics(request);
  ASSERT_TRUE(told.ok()) << told.status();
  ASSERT_EQ(told->entries_size(), 3);
  EXPECT_EQ(told->entries(0).entry_id(), "gold");
  EXPECT_EQ(told->entries(0).filter(), "filters/gold");
  EXPECT_EQ(told->entries(0).kind(), "throttle");
  EXPECT_EQ(told->entries(1).filter(), "");
  EXPECT_EQ(told->entries(1).kind(), "delay");
  const v1::FilterStatistics& slow = told->entries(2);
  ASSERT_EQ(slow.counters_size(), 1);
  EXPECT_EQ(slow.counters(0).metric(), "requests");
  EXPECT_EQ(slow.counters(0).value(), 7u);
  ASSERT_EQ(slow.histograms_size(), 1);
  EXPECT_EQ(slow.histograms(0).metric(), "read_time_us");
  EXPECT_EQ(slow.histograms(0).sum(), 99u);
  ASSERT_EQ(slow.histograms(0).buckets_size(), 2);
  EXPECT_EQ(slow.histograms(0).buckets(1).upper_bound(), ~uint64_t{0});
  EXPECT_EQ(slow.histograms(0).buckets(1).count(), 3u);
  request.set_name("exports/none");
  EXPECT_EQ(ReasonIn(domain_->inspector().FilterStatistics(request).status()),
            "RESOURCE_NOT_FOUND");
}

}  // namespace
}  // namespace gabion::service
