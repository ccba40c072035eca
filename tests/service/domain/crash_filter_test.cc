// Calls that change filters, and what exports have of them, cut off at each of their steps.
#include <gtest/gtest.h>

#include <string>

#include "tests/service/domain/crash_fixture.h"

namespace gabion::service {
namespace {

class CrashFilterTest : public CrashFixture {
 protected:
  static constexpr const char* kName = "filters/f";
  static constexpr const char* kDelay = "delay { read { seconds: 1 } }";

  v1::UpdateFilterRequest UpdateRequest(int64_t seconds) {
    v1::UpdateFilterRequest request;
    request.mutable_filter()->set_name(kName);
    request.mutable_filter()->mutable_spec()->mutable_delay()->mutable_read()->set_seconds(seconds);
    return request;
  }
  v1::CreateFilterRequest CreateRequest(const std::string& id) {
    v1::CreateFilterRequest request;
    request.set_filter_id(id);
    *request.mutable_filter()->mutable_spec() = FilterSpecOf(kDelay);
    return request;
  }
  void MakeFilter(const std::string& id) {
    const auto made = Send(CreateRequest(id));
    ASSERT_TRUE(made.ok()) << made.status();
  }
  // exports/{id} of images/a with filters/f.
  void MakeFiltered(const std::string& id) {
    v1::CreateExportRequest request = CreateExportRequest(id, "images/a");
    AddEntry(request.mutable_export_(), "filter: 'filters/f'");
    const auto made = Send(request);
    ASSERT_TRUE(made.ok()) << made.status();
  }
  void MakeWorld() {
    MakeImage("a");
    MakeFilter("f");
    for (const char* id : {"e1", "e2", "e3"}) MakeFiltered(id);
  }
};

TEST_F(CrashFilterTest, Creation) {
  Scenario scenario;
  scenario.call = [this](bool other) {
    v1::CreateFilterRequest request = CreateRequest("f");
    if (other) request.mutable_filter()->set_description("other");
    return Ask(request);
  };
  scenario.done = [this](bool) { EXPECT_EQ(GetFilter(kName).generation(), 1u); };
  ForEveryCut(scenario);
}

TEST_F(CrashFilterTest, Update) {
  Scenario scenario;
  scenario.prepare = [this] { MakeWorld(); };
  scenario.call = [this](bool other) { return Ask(UpdateRequest(other ? 3 : 2)); };
  scenario.done = [this](bool) {
    EXPECT_EQ(GetFilter(kName).generation(), 2u);
    EXPECT_EQ(GetFilter(kName).spec().delay().read().seconds(), 2);
    EXPECT_EQ(GetFilter(kName).attachment_count(), 3u);
  };
  ForEveryCut(scenario);
}

TEST_F(CrashFilterTest, UpdateWhileAnExportIsFailed) {
  Scenario scenario;
  scenario.prepare = [this] {
    MakeWorld();
    MakeImage("b");
    v1::CreateExportRequest request = CreateExportRequest("g", "images/b");
    AddEntry(request.mutable_export_(), "filter: 'filters/f'");
    ASSERT_TRUE(Send(request).ok());
    files_.SetLocked("b.raw", true);
    Reopen();
    ASSERT_EQ(GetExport("exports/g").state(), v1::Export::STATE_FAILED);
  };
  scenario.call = [this](bool other) { return Ask(UpdateRequest(other ? 3 : 2)); };
  scenario.done = [this](bool) {
    EXPECT_EQ(GetFilter(kName).spec().delay().read().seconds(), 2);
    EXPECT_EQ(GetExport("exports/g").state(), v1::Export::STATE_FAILED);
  };
  ForEveryCut(scenario);
}

TEST_F(CrashFilterTest, UpdateOfWhatIsNotServed) {
  Scenario scenario;
  scenario.prepare = [this] { MakeFilter("f"); };
  scenario.call = [this](bool other) { return Ask(UpdateRequest(other ? 3 : 2)); };
  scenario.done = [this](bool) {
    EXPECT_EQ(GetFilter(kName).generation(), 2u);
    EXPECT_EQ(GetFilter(kName).spec().delay().read().seconds(), 2);
  };
  ForEveryCut(scenario);
}

TEST_F(CrashFilterTest, UpdateOfItsDescription) {
  Scenario scenario;
  scenario.prepare = [this] { MakeWorld(); };
  scenario.call = [this](bool other) {
    v1::UpdateFilterRequest request;
    request.mutable_filter()->set_name(kName);
    request.mutable_filter()->set_description(other ? "other" : "new");
    return Ask(request);
  };
  scenario.done = [this](bool) {
    EXPECT_EQ(GetFilter(kName).description(), "new");
    EXPECT_EQ(GetFilter(kName).generation(), 2u);
  };
  ForEveryCut(scenario);
}

// What spoke for an update when it was begun may speak against it after the restart.
TEST_F(CrashFilterTest, UpdateThatTheNextStartRefuses) {
  const auto refuse = [](FakeEngine* engine) {
    engine->SetStackCheck([](const engine::ExportSpec& spec) -> absl::Status {
      if (spec.name != "exports/e2" || spec.filters.empty()) return absl::OkStatus();
      const auto read = std::get<filters::DelayOptions>(spec.filters[0].options).read;
      return read == std::chrono::seconds(2) ? absl::UnavailableError("no") : absl::OkStatus();
    });
  };
  bool unfinished = true;
  for (int steps = 0; unfinished && !HasFailure(); ++steps) {
    SCOPED_TRACE(testing::Message() << "after " << steps << " steps");
    NewWorld();
    MakeWorld();
    death_.After(steps, Way::kAfter);
    const bool answered = Ask(UpdateRequest(2)).ok();
    EXPECT_EQ(answered, !death_.came());
    Kill();
    unfinished = Rows("intents") > 0;
    EXPECT_TRUE(unfinished || steps > 1) << "It was not begun.";
    if (!unfinished) break;
    const auto prepare = prepare_engine_;
    prepare_engine_ = [&](FakeEngine* engine) {
      prepare(engine);
      refuse(engine);
    };
    Resurrect();
    prepare_engine_ = prepare;
    AwaitQuiet();
    EXPECT_EQ(GetFilter(kName).generation(), 1u);
    EXPECT_EQ(GetFilter(kName).spec().delay().read().seconds(), 1);
    for (const char* name : {"exports/e1", "exports/e2", "exports/e3"}) {
      EXPECT_EQ(GetExport(name).state(), v1::Export::STATE_ACTIVE) << name;
    }
    ExpectAgreement();
  }
}

TEST_F(CrashFilterTest, Deletion) {
  Scenario scenario;
  scenario.prepare = [this] { MakeFilter("f"); };
  scenario.call = [this](bool other) {
    v1::DeleteFilterRequest request;
    request.set_name(kName);
    request.set_allow_missing(other);
    return Ask(request);
  };
  scenario.done = [this](bool) {
    EXPECT_EQ(ReasonIn(domain_->filters().Get(kName).status()), "RESOURCE_NOT_FOUND");
  };
  ForEveryCut(scenario);
}

TEST_F(CrashFilterTest, CreationOfAnExportWithFilters) {
  Scenario scenario;
  scenario.prepare = [this] {
    MakeImage("a");
    MakeFilter("f");
  };
  scenario.call = [this](bool other) {
    v1::CreateExportRequest request = CreateExportRequest("e", "images/a");
    AddEntry(request.mutable_export_(), "filter: 'filters/f'");
    if (other) AddEntry(request.mutable_export_(), "spec { log {} }");
    return Ask(request);
  };
  scenario.done = [this](bool) { EXPECT_EQ(GetExport("exports/e").filter_stack_size(), 1); };
  ForEveryCut(scenario);
}

TEST_F(CrashFilterTest, Attaching) {
  Scenario scenario;
  scenario.prepare = [this] {
    MakeWorld();
    MakeFilter("g");
  };
  scenario.call = [this](bool other) {
    v1::AttachFilterRequest request;
    request.set_name("exports/e1");
    request.mutable_entry()->set_filter("filters/g");
    request.mutable_entry()->set_bypassed(other);
    return Ask(request);
  };
  scenario.done = [this](bool) {
    EXPECT_EQ(GetExport("exports/e1").filter_stack_size(), 2);
    EXPECT_EQ(GetFilter("filters/g").attachment_count(), 1u);
  };
  ForEveryCut(scenario);
}

TEST_F(CrashFilterTest, Detaching) {
  Scenario scenario;
  scenario.prepare = [this] { MakeWorld(); };
  scenario.call = [this](bool other) {
    v1::DetachFilterRequest request;
    request.set_name("exports/e1");
    request.set_entry_id("f");
    request.set_allow_missing(other);
    return Ask(request);
  };
  scenario.done = [this](bool) {
    EXPECT_EQ(GetExport("exports/e1").filter_stack_size(), 0);
    EXPECT_EQ(GetFilter(kName).attachment_count(), 2u);
  };
  ForEveryCut(scenario);
}

TEST_F(CrashFilterTest, DeletionOfAnExportWithFilters) {
  Scenario scenario;
  scenario.prepare = [this] { MakeWorld(); };
  scenario.call = [this](bool other) {
    v1::DeleteExportRequest request;
    request.set_name("exports/e1");
    request.set_allow_missing(other);
    return Ask(request);
  };
  scenario.done = [this](bool) {
    ExpectNoExport("exports/e1");
    EXPECT_EQ(GetFilter(kName).attachment_count(), 2u);
  };
  ForEveryCut(scenario);
}

}  // namespace
}  // namespace gabion::service
